// What a process has before it trains: the other ranks, and a device of its own. Of `strake train` and `strake bench`.
// Threads: the training thread. Errors: CommError; AgreedError for a device that is not here; DeviceError.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "comm/control.h"
#include "launch/config.h"
#include "launch/job/rank_environment.h"
#include "launch/job/watch.h"
#include "runtime/device/device.h"
#include "runtime/device/jitter_device.h"
#include "runtime/device/order_checker.h"

namespace strake::launch {

// One rank of a job: what it has from its first instruction to its last.
struct JobRank {
  std::unique_ptr<comm::Communicator> host;  // for CPU devices
  comm::Control& control;
  RankWatch& watch;
};

// Runs `work` as a rank of this job (the ranks that a launcher started, or this process alone) and returns the exit
// code. An AgreedError is reported once; any other exception of one of several ranks is
// reported and ends the job on all of them, since they may be waiting for this one.
using RankWork = std::function<int(JobRank& rank)>;
// `hang_limit`: the watch's first deadline, from before MPI starts.
int run_as_rank(const RankWork& work, std::chrono::milliseconds hang_limit = std::chrono::milliseconds(0));

// The device that run.device names, within the wrappers that debug.* asks for.
class RankDevice {
 public:
  // Collective: the ranks agree on the kind of device. `run_folder`: of the run that goes on if it has a checkpoint,
  // which then does not leave GPUs unasked; empty: none.
  // `environment`: how this rank was started.
  RankDevice(const Config& config, comm::Control& control, const std::filesystem::path& run_folder = {},
             const RankEnvironment& environment = RankEnvironment::detect());
  RankDevice(const RankDevice&) = delete;
  RankDevice& operator=(const RankDevice&) = delete;

  // Why run.device = auto took the CPU; empty: it did not.
  const std::string& no_gpus_because() const { return no_gpus_because_; }
  Device& base() { return *base_; }
  Device& outer() { return *outer_; }

 private:
  std::unique_ptr<Device> base_;
  std::optional<CheckedDevice> checked_;
  std::optional<JitterDevice> jittery_;
  Device* outer_ = nullptr;
  std::string no_gpus_because_;
};

}  // namespace strake::launch
