// What a process has before it trains: the other ranks, and a device of its own. Of `strake train` and `strake bench`.
// Threads: the training thread. Errors: CommError; ConfigError or DeviceError for a device that is not here.
#pragma once

#include <memory>
#include <optional>

#include "comm/communicator.h"
#include "comm/control.h"
#include "comm/mpi/mpi_world.h"
#include "comm/threads/threads_world.h"
#include "launch/config.h"
#include "runtime/device/device.h"
#include "runtime/device/jitter_device.h"
#include "runtime/device/order_checker.h"

namespace strake::launch {

// The ranks of this job: those that a launcher started, or this process alone. Outlives what it makes.
class World {
 public:
  static World join();
  std::unique_ptr<comm::Communicator> make_communicator();  // of host memory
  std::unique_ptr<comm::Control> make_control();

 private:
  World() = default;
  std::unique_ptr<comm::MpiWorld> mpi_;
  std::unique_ptr<comm::ThreadsWorld> alone_;
};

// The device that run.device names, within the wrappers that debug.* asks for.
class RankDevice {
 public:
  RankDevice(const Config& config, int rank);
  RankDevice(const RankDevice&) = delete;
  RankDevice& operator=(const RankDevice&) = delete;

  Device& base() { return *base_; }
  Device& outer() { return *outer_; }

 private:
  std::unique_ptr<Device> base_;
  std::optional<CheckedDevice> checked_;
  std::optional<JitterDevice> jittery_;
  Device* outer_;
};

}  // namespace strake::launch
