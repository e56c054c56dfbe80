// Training a run: from a config to the last checkpoint. `run_train` is the program (`strake train`);
// `train_rank` is one rank of it with its device, communicator and control handed in, so that tests run
// several ranks as threads and wrap any part in a fault.
//
// Threads: train_rank is called by the training thread of its rank.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/control.h"
#include "data/token_source.h"
#include "launch/config.h"
#include "launch/job/watch.h"
#include "launch/train/trainer.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/device/device.h"
#include "runtime/io/files.h"

namespace strake::launch {

// An error that every rank knows of: rank 0 reports it once and all ranks leave by themselves.
struct AgreedError : Error {
  using Error::Error;
};

struct RankParts {
  Device& device;
  comm::Communicator& communicator;  // of the data axis
  comm::Control& control;
  Files& files;
  Logger log;
  RankWatch* watch = nullptr;  // null: nobody notices hangs

  bool leads() const { return control.rank() == 0; }
  // What this rank is at until the result is gone, for who asks when nothing moves.
  std::optional<RankWatch::Section> at(std::string what, Patience patience = Patience::kStep) const;
  // Throws what has gone wrong on the device or between ranks since it was last asked.
  void check() const;
};

struct StepSummary {
  std::int64_t step = 0;  // from 1
  double loss = 0;        // mean over the tokens of all ranks
  double grad_norm = 0;
  int stop_signal = 0;  // that some rank has been sent, known to all behind this step; 0: none
};

// Where tests and the program reach into a rank. Every member may be empty.
struct TrainHooks {
  std::function<int()> stop_requested;  // signal number, or 0
  std::function<std::unique_ptr<data::TokenSource>(data::TokenSource&)> wrap_train_source;
  std::function<void(std::int64_t step)> before_step;  // on the training thread, before a step is enqueued
  std::function<void(Trainer&)> before_first_step;
  std::function<void(const StepReport&)> on_report;
  std::function<void(const StepSummary&)> on_step;  // one step after on_report, when all ranks have told their share
  double peak_flops = 0;                            // of this rank's device, for MFU; 0: not known
};

struct HeldOut {
  std::int64_t step = 0;  // steps done when it was computed
  double loss = 0;        // nats a token
};

// Of one attempt. Of one size, however long it runs: what every step did is in the run folder.
struct TrainResult {
  std::int64_t first_step = 0;  // optimizer steps done before this attempt
  std::int64_t steps_done = 0;  // after it
  double load_s = 0;            // that its checkpoint took: opened, verified, read, on the device; 0: there was none
  std::optional<double> first_loss, last_loss;
  std::optional<HeldOut> last_held_out, best_held_out;  // the best: on rank 0 of all attempts
  int stop_signal = 0;  // that ended the run early; 0 also where the last step was done all the same
};

// Trains until train.steps or train.stop_at, or until a stop is requested on any rank. Collective over all ranks.
// Throws AgreedError for what all ranks know, which nobody has reported yet. Of several ranks, one that meets any other
// error reports it here and ends the job through Control::abort.
TrainResult train_rank(const Config& config, RankParts parts, const TrainHooks& hooks,
                       const std::vector<std::string>& command_line);

struct TrainArguments {
  std::string config_path;
  std::vector<std::string> overrides;
  std::vector<std::string> command_line;
  bool print_schedule = false;  // print streams, operations, waits and memory of a step, and stop
};

// `strake train`. Returns the exit code.
int run_train(const TrainArguments& arguments);

}  // namespace strake::launch
