// Variant: how a step is laid out and who is late, of what must not change a bit of a run's results. Variants are
// compared within a cell: ranks, micro-batch and accumulation (docs/determinism.md).
// Threads: values. Errors: none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/config.h"
#include "models/recompute.h"
#include "models/shard.h"

namespace strake::launch {

// Sizes of buckets, MiB: of a parameter each, and of all that may share one.
inline constexpr double kBucketEachMib = 1e-6, kOneBucketMib = 65536;

struct Variant {
  std::string name;
  bool overlap;
  double bucket_mib;
  std::string late_stream = {};  // its operations begin late; "all": some of every stream's
  bool late_host = false;        // operations are enqueued late
  models::Shard shard = models::Shard::kNone;
  std::optional<models::Recompute> recompute = {};  // not set: as the config has it
};

Config with(Config config, const Variant& variant);

// Overlap off and on, gradients in one bucket, in `some_buckets_mib` and a parameter each; then each stream late, the
// host, and everything. The first is the plainest: nothing runs beside anything.
std::vector<Variant> schedules(double some_buckets_mib, models::Shard shard);

// All that `config` can be compared in, the plainest first: the schedules, sharded too where there is another rank, and
// every recomputation.
std::vector<Variant> variants_of(const Config& config, int ranks);

struct Cell {
  int ranks;
  std::int64_t micro_batch, accumulation;

  std::string name() const;  // "micro-batch 16 x 1"
};

// That of `config`, then those of micro-batches 1 and 2 where train.global_batch can be divided so. Throws ConfigError
// where the first cannot.
std::vector<Cell> cells_of(const Config& config, int ranks);

}  // namespace strake::launch
