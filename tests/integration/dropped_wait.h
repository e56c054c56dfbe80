// A training run of two ranks with an evaluation and checkpoints, in which rank 0 leaves out one of its waits.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "launch/train/strategy_choice.h"
#include "runtime/base/error.h"
#include "runtime/device/order_checker.h"
#include "tests/integration/small_job.h"
#include "tests/integration/variants.h"
#include "tests/support/faulty_device.h"

namespace strake::test {

// Every wait of a training run, by what ranks keep a part of. A new one belongs here: it must be shown to be
// load-bearing.
inline constexpr const char* kReplicatedWaitSites[] = {
    "communication waits for gradients",         // RAW
    "compute waits for reduced gradients",       // RAW
    "compute waits for the batch",               // RAW
    "copy-in waits for the slot's last reader",  // WAR
    "evaluation waits for the batch",            // RAW
    "snapshot waits for the updated weights",    // RAW
    "update waits for the snapshot",             // WAR, where training goes on meanwhile
};

inline constexpr const char* kShardedWaitSites[] = {
    "communication waits for block sums",        // RAW
    "communication waits for gradients",         // RAW
    "communication waits for updated weights",   // RAW
    "compute waits for added block sums",        // RAW
    "compute waits for gathered weights",        // RAW
    "compute waits for reduced gradients",       // RAW
    "compute waits for the batch",               // RAW
    "copy-in waits for the slot's last reader",  // WAR
    "evaluation waits for the batch",            // RAW
    "snapshot waits for the updated weights",    // RAW
    "update waits for the snapshot",             // WAR, where training goes on meanwhile
};

// And where the token table's gradient is split.
inline constexpr const char* kSplitWaitSites[] = {
    "communication waits for token ids",   // RAW
    "communication waits for token rows",  // RAW
};

// What a run keeps and sends.
struct WaitingRun {
  models::Shard shard = models::Shard::kNone;
  bool split = false;  // comm.split_embedding
  launch::CheckpointStrategy strategy = launch::CheckpointStrategy::kLazy;
  bool saves_beside() const { return strategy != launch::CheckpointStrategy::kSync; }
  std::string name() const {
    return fmt::format("{}{}_{}", name_of(shard), split ? "_split" : "", name_of(launch::planned_strategy(strategy)));
  }
};
inline constexpr WaitingRun kWaitingRuns[] = {
    {models::Shard::kNone, false},
    {models::Shard::kOptimizer, false},
    {models::Shard::kNone, true},
    {models::Shard::kOptimizer, true},
    {models::Shard::kNone, false, launch::CheckpointStrategy::kSync},
    {models::Shard::kNone, false, launch::CheckpointStrategy::kPinned},
    {models::Shard::kOptimizer, false, launch::CheckpointStrategy::kDevice},
};

inline std::vector<std::string> wait_sites(const WaitingRun& run) {
  std::vector<std::string> sites(std::begin(kReplicatedWaitSites), std::end(kReplicatedWaitSites));
  if (run.shard == models::Shard::kOptimizer) sites.assign(std::begin(kShardedWaitSites), std::end(kShardedWaitSites));
  if (!run.saves_beside()) std::erase(sites, "update waits for the snapshot");
  if (run.split) sites.insert(sites.end(), std::begin(kSplitWaitSites), std::end(kSplitWaitSites));
  std::ranges::sort(sites);
  return sites;
}

struct DroppedWait {
  std::vector<OrderChecker::Report> reports;         // of rank 0
  std::map<std::string, std::int64_t> waits_passed;  // by it
  std::int64_t waits_dropped = 0;
};

// `site` empty: none is dropped. Dropped are the passes from `from_pass` on: a slot's first use has no hazard.
inline DroppedWait run_with_dropped_wait(
    SmallJob& job, const WaitingRun& waiting, const std::string& site, std::int64_t from_pass,
    const MakeDevice& make_device = [](int) { return make_cpu_device(); },
    launch::CommBackend backend = launch::CommBackend::kAuto) {
  launch::Config config = job.config(2, 2, 2, 8);
  config.comm.backend = backend;
  config.comm.bucket_mib = kSomeBuckets;
  config.comm.split_embedding = waiting.split ? launch::SplitTable::kAlways : launch::SplitTable::kNever;
  config.train.shard = waiting.shard;
  config.checkpoint.every = 2;
  config.checkpoint.strategy = waiting.strategy;
  config.data.val = {job.val_tokens().string()};
  config.eval.every = 5;
  config.eval.batches = 10;
  DroppedWait outcome;
  run_threads(config, 2, [&](int rank, const RunRank& run) {
    const auto base = make_device(rank);
    CheckedDevice checked(*base, CheckedDevice::Policy::kCollect);
    FaultyDevice device(checked);
    if (rank == 0) {
      device.faults().wait_to_drop = site;
      device.faults().drop_from_pass = from_pass;
    }
    try {
      run({.device = &device});
    } catch (const Error& error) {
      // Without the wait the ranks may really come to hold different weights; the next checkpoint says so and ends the
      // run behind the first race.
      if (site.empty() || error.exit_code() != ExitCode::kFailure) throw;
    }
    if (rank != 0) return;
    outcome = {checked.checker().reports(), device.waits_passed(), device.waits_dropped()};
  });
  return outcome;
}

// Without any one of them the order checker reports, with all of them it is silent.
inline void expect_every_wait_is_load_bearing(
    SmallJob& job, const WaitingRun& waiting, const MakeDevice& make_device = [](int) { return make_cpu_device(); },
    launch::CommBackend backend = launch::CommBackend::kAuto) {
  const DroppedWait clean = run_with_dropped_wait(job, waiting, "", 0, make_device, backend);
  for (const OrderChecker::Report& report : clean.reports) ADD_FAILURE() << report.describe();
  EXPECT_EQ(clean.waits_dropped, 0);

  std::vector<std::string> sites;
  for (const auto& [site, passes] : clean.waits_passed) sites.push_back(site);
  EXPECT_EQ(sites, wait_sites(waiting));

  for (const auto& [site, passes] : clean.waits_passed) {
    const DroppedWait dropped = run_with_dropped_wait(job, waiting, site, passes / 2, make_device, backend);
    EXPECT_GT(dropped.waits_dropped, 0) << site;
    EXPECT_FALSE(dropped.reports.empty()) << "'" << site << "' is not needed, or an access behind it is not declared";
    if (site != "copy-in waits for the slot's last reader") continue;
    // Two loaders wait there.
    for (const char* operation : {"train batch h2d", "val batch h2d"}) {
      const bool found = std::any_of(dropped.reports.begin(), dropped.reports.end(),
                                     [&](const auto& report) { return report.operation == operation; });
      EXPECT_TRUE(found) << operation;
    }
  }
}

}  // namespace strake::test
