// `strake verify-overlap`: shows for a config of the user's that overlap, buckets, sharding, recomputation and delays
// of any stream change no bit of a result: a few steps in every variant, each under the order checker, compared within
// each cell (docs/determinism.md). Nothing is written.
//
// Ranks are those that a launcher has started, or else threads of this process. On GPUs train.deterministic is set.
// Where NCCL adds more than two ranks, in an order of its own, only variants of equal buckets are compared.
// Threads: the main thread. Errors: as `strake train`; AgreedError with ExitCode::kFailure where a variant differs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launch/train/train.h"
#include "launch/verify/train_variant.h"
#include "launch/verify/verify_report.h"

namespace strake::launch {

struct VerifyOverlapArguments {
  static constexpr std::int64_t kThreads = 2;
  std::string config_path;
  std::vector<std::string> overrides;
  std::vector<std::string> command_line;
  std::vector<std::string> only;  // parts of names of variants, any of which chooses; empty: all
  std::int64_t ranks = 0;         // as threads; 0: those of a launcher, or kThreads
  std::int64_t steps = 6;
  bool random_data = false;  // also if the config names data
  bool json = false;
};

// Of a cell, the plainest first.
struct CellOfVariants {
  Cell cell;
  std::vector<Variant> variants;
};
// What there is to be run. Throws ConfigError if `only` chooses none.
std::vector<CellOfVariants> variants_to_verify(const Config& config, int ranks, const std::vector<std::string>& only);

struct VerifyJob {
  Config config;
  std::vector<CellOfVariants> cells;
  std::int64_t steps = 0;
  std::function<int()> stop_requested = {};  // signal number, or 0; asked on each rank's thread once a step
  // Told on rank 0's thread as it goes.
  std::function<void(const Cell& cell)> on_cell = {};
  std::function<void(const VariantResult& result)> on_variant = {};
  VerifyHooks hooks = {};
};

// One rank. Collective; the same report on every rank. The first variant's errors are thrown: there is nothing to
// compare with. Later on, what all ranks know to be too much for this machine is a variant that is not run.
VerifyReport verify_variants(const VerifyJob& job, const RankParts& parts);

// Ranks as threads of this process, each with the device that a process of its own would take. `while_they_run` is
// called over and over on this thread until they have ended.
VerifyReport verify_on_threads(const VerifyJob& job, int ranks, const std::function<void()>& while_they_run = {});

// Returns the exit code.
int run_verify_overlap(const VerifyOverlapArguments& arguments, const VerifyHooks& hooks = {});

}  // namespace strake::launch
