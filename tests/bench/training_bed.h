// TrainingBed: training runs for benches, ranks as threads, through the same loop as the program's (train_rank).
// It owns a scratch folder with a token file; each run writes a run folder of its own there.
//
// Threads: one; hooks are called on the training thread of their rank. Errors: what a rank throws.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "data/token_source.h"
#include "launch/train/train.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gpu_ranks.h"

namespace strake::bench {

// Every hook may be empty.
struct RunSetup {
  int ranks = 2;
  bool gpus = false;           // a GPU for each rank; else the CPU device
  launch::Config config = {};  // folders and token files are the bed's
  std::function<std::unique_ptr<comm::Communicator>(int rank, std::unique_ptr<comm::Communicator>)> wrap_communicator =
      {};
  std::function<std::unique_ptr<data::TokenSource>(int rank, data::TokenSource&)> wrap_source = {};
  std::function<void(int rank, launch::Trainer&, test::FaultyDevice&)> before_first_step = {};
  std::function<void(int rank, launch::Trainer&, std::int64_t step)> before_step = {};
  std::function<void(int rank, const launch::StepReport&)> on_report = {};
};

struct RankTrace {
  std::vector<launch::StepReport> steps;
  // From just before the first step was enqueued until its rank knew that the last had ended, by the host's clock.
  std::chrono::nanoseconds host_time{0};
  std::vector<std::int64_t> bucket_bytes;
};

double milliseconds(Nanoseconds time);
// One value a step, without the first `skip` steps.
std::vector<double> wall_ms(const RankTrace& trace, std::size_t skip);
std::vector<double> class_ms(const RankTrace& trace, StepClass step_class, std::size_t skip);

class TrainingBed {
 public:
  TrainingBed();
  ~TrainingBed();
  TrainingBed(const TrainingBed&) = delete;
  TrainingBed& operator=(const TrainingBed&) = delete;

  // By rank.
  std::vector<RankTrace> run(const RunSetup& setup);

 private:
  std::filesystem::path folder_;
  int runs_ = 0;
  test::GpuRanks gpus_{/*deterministic=*/true};  // kept: plans are built once. What must repeat is not tuned
};

}  // namespace strake::bench
