// A training run of two ranks with an evaluation and checkpoints, in which rank 0 leaves out one of its waits.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/device/order_checker.h"
#include "tests/integration/small_job.h"
#include "tests/integration/variants.h"
#include "tests/support/faulty_device.h"

namespace strake::test {

// Every wait of a training run. A new one belongs here: it must be shown to be load-bearing.
inline constexpr const char* kWaitSites[] = {
    "communication waits for gradients",         // RAW
    "compute waits for reduced gradients",       // RAW
    "compute waits for the batch",               // RAW
    "copy-in waits for the slot's last reader",  // WAR
    "evaluation waits for the batch",            // RAW
    "snapshot waits for the updated weights",    // RAW
};

struct DroppedWait {
  std::vector<OrderChecker::Report> reports;         // of rank 0
  std::map<std::string, std::int64_t> waits_passed;  // by it
  std::int64_t waits_dropped = 0;
};

// `site` empty: none is dropped. Dropped are the passes from `from_pass` on: a slot's first use has no hazard.
inline DroppedWait run_with_dropped_wait(SmallJob& job, const std::string& site, std::int64_t from_pass) {
  launch::Config config = job.config(2, 2, 2, 8);
  config.comm.bucket_mib = kSomeBuckets;
  config.checkpoint.every = 2;
  config.data.val = job.val_tokens().string();
  config.eval.every = 5;
  config.eval.batches = 5;
  DroppedWait outcome;
  run_threads(config, 2, [&](int rank, const RunRank& run) {
    const auto cpu = make_cpu_device();
    CheckedDevice checked(*cpu, CheckedDevice::Policy::kCollect);
    FaultyDevice device(checked);
    if (rank == 0) {
      device.faults().wait_to_drop = site;
      device.faults().drop_from_pass = from_pass;
    }
    run({.device = &device});
    if (rank != 0) return;
    outcome = {checked.checker().reports(), device.waits_passed(), device.waits_dropped()};
  });
  return outcome;
}

}  // namespace strake::test
