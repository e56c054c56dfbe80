// JobInputs: a config turned into what is trained and the token files it is trained on. Every problem that can
// be seen before memory is taken is found here.
#pragma once

#include <memory>
#include <optional>

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
};

}  // namespace strake::launch
