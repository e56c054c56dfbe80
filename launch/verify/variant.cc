#include "launch/verify/variant.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "models/recompute.h"

namespace strake::launch {

Config with(Config config, const Variant& variant) {
  config.train.shard = variant.shard;
  config.train.recompute = variant.recompute.value_or(config.train.recompute);
  config.comm.overlap = variant.overlap;
  config.comm.bucket_mib = variant.bucket_mib;
  return config;
}

std::vector<Variant> schedules(double some_buckets_mib, models::Shard shard) {
  std::vector<Variant> out{
      {"serial, one bucket", false, kOneBucketMib},
      {"serial, a bucket a parameter", false, kBucketEachMib},
      {"overlapped, one bucket", true, kOneBucketMib},
      {fmt::format("overlapped, buckets of {} MiB", some_buckets_mib), true, some_buckets_mib},
      {"overlapped, a bucket a parameter", true, kBucketEachMib},
      {"compute late", true, some_buckets_mib, "compute"},
      {"communication late", true, some_buckets_mib, "comm"},
      {"input late", true, some_buckets_mib, "copy-in"},
      {"host late", true, some_buckets_mib, "", true},
      {"all late", true, kBucketEachMib, "all"},
  };
  for (Variant& variant : out) {
    variant.shard = shard;
    if (shard != models::Shard::kNone) variant.name += ", sharded";
  }
  return out;
}

std::vector<Variant> variants_of(const Config& config, int ranks) {
  std::vector<models::Shard> shards{models::Shard::kNone};
  if (ranks > 1) shards.push_back(models::Shard::kOptimizer);
  const double bucket_mib = config.comm.bucket_mib.value_or(25);  // auto: what is shown is that any size gives the same
  std::vector<Variant> out;
  for (const models::Shard shard : shards) std::ranges::copy(schedules(bucket_mib, shard), std::back_inserter(out));
  for (const models::Recompute recompute :
       {models::Recompute::kNone, models::Recompute::kNormActivation, models::Recompute::kBlock}) {
    if (recompute == config.train.recompute) continue;
    for (const models::Shard shard : shards) {
      Variant variant{fmt::format("recompute {}", name_of(recompute)), true, bucket_mib};
      if (shard != models::Shard::kNone) variant.name += ", sharded";
      variant.shard = shard;
      variant.recompute = recompute;
      out.push_back(std::move(variant));
    }
  }
  return out;
}

std::string Cell::name() const { return fmt::format("micro-batch {} x {}", micro_batch, accumulation); }

std::vector<Cell> cells_of(const Config& config, int ranks) {
  std::vector<Cell> cells{{ranks, config.train.micro_batch, derive(config, ranks).accumulation}};
  for (const std::int64_t micro_batch : {1, 2}) {
    const std::int64_t at_once = micro_batch * ranks;
    if (micro_batch == config.train.micro_batch || config.train.global_batch % at_once != 0) continue;
    cells.push_back({ranks, micro_batch, config.train.global_batch / at_once});
  }
  return cells;
}

}  // namespace strake::launch
