// JobInputs: a config turned into what is trained and the token files it is trained on. Every problem that can
// be seen before memory is taken is found here.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/data_cursor.h"
#include "data/token_files.h"
#include "launch/config.h"
#include "launch/train/trainer.h"

namespace strake::launch {

// With more ranks comm.wire_dtype = auto sums gradients in f32: NCCL rounds a sum of bf16 at every addition.
inline constexpr int kMostRanksOnANarrowWire = 8;

// The job of a rank with a vocabulary that is known: types chosen, everything checked that needs no token file.
// `device`: what will compute. Throws ConfigError.
Job job_of(const Config& config, int rank, int ranks, DeviceKind device, std::int64_t vocab);

struct JobInputs {
  Job job;
  std::unique_ptr<data::TokenFiles> train;
  std::unique_ptr<data::TokenFiles> val;  // null: none configured

  // `device`: what will compute. Throws ConfigError or DataError. Reads of the held-out tokens what this rank's part of
  // an evaluation will read, of the others a few parts: the cost does not grow with the files.
  static JobInputs open(const Config& config, int rank, int ranks, DeviceKind device = DeviceKind::kCpu);
  // What this rank was given, as texts that are equal on two ranks if and only if it is the same, as far as is known:
  // "data.train", of several files also "data.train[0]" and so on, "data.val", "tokenizer". No path is part of it.
  std::vector<std::pair<std::string, std::string>> identity() const;
  // Of a run that has trained on the samples before `next_sample`.
  data::DataCursor cursor(std::int64_t next_sample) const;
  TokenSources sources() const { return {train.get(), val.get()}; }
};

}  // namespace strake::launch
