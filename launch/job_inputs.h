// JobInputs: a config turned into what is trained and the token files it is trained on. Every problem that can
// be seen before memory is taken is found here.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/token_file.h"
#include "launch/config.h"
#include "launch/trainer.h"

namespace strake::launch {

struct JobInputs {
  Job job;
  std::unique_ptr<data::TokenFile> train;
  std::unique_ptr<data::TokenFile> val;  // null: none configured

  // `device`: what will compute. Throws ConfigError or DataError.
  static JobInputs open(const Config& config, int rank, int ranks, DeviceKind device = DeviceKind::kCpu);
  TokenSources sources() const { return {train.get(), val.get()}; }
  // What the files are, as far as is known without reading them: the same on all ranks.
  std::vector<std::pair<std::string, std::string>> identity() const;
};

}  // namespace strake::launch
