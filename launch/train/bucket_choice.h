// The size of gradient buckets where comm.bucket_mib is auto: the one that leaves the least communication exposed, by a
// prediction from a few steps before the run (comm/exposure.h).
//
// Five trials of six steps each on the run's own tokens. Without overlap: a bucket for every parameter, which tells
// when each gradient is final and what small reductions take alone, buckets of a fifth of all, and one for all. With
// overlap: a bucket for every parameter, and of a fifth, for what reductions take beside backward and it beside them.
// The trials have memory of their own, which is given back; nothing of them stays but the size. Rank 0 chooses, all
// ranks take it. A run that resumes on as many ranks takes what its checkpoint says. Under train.deterministic, and on
// one rank, nothing is measured: a fixed rule says the size.
//
// Threads: the training thread. Errors: AgreedError; what a step throws.
#pragma once

#include <optional>
#include <string>

#include "comm/exposure.h"
#include "launch/train/train.h"

namespace strake::launch {

struct BucketChoice {
  enum class By { kConfig, kRule, kMeasurement, kCheckpoint };
  double mib = 0;
  By by = By::kConfig;
  // Where it was measured, in this attempt or by the one that wrote the checkpoint.
  struct Prediction {
    comm::ReductionCosts costs;
    double dilation = 1;    // of backward
    double exposed_ms = 0;  // a step
  };
  std::optional<Prediction> prediction = {};

  std::string describe() const;  // one line
  // A JSON object, for manifests and checkpoints.
  std::string to_json() const;
  // What to_json has written of a choice by measurement; nullopt for anything else.
  static std::optional<BucketChoice> measured_from(const std::string& json);
};

// Collective. `job`: with comm.bucket_mib as configured.
BucketChoice choose_buckets(const Job& job, const RankParts& parts, data::TokenSource& train_tokens);

}  // namespace strake::launch
