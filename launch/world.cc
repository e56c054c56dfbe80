#include "launch/world.h"

#include <chrono>

#include "launch/devices.h"
#include "launch/rank_environment.h"

namespace strake::launch {

World World::join() {
  World world;
  if (RankEnvironment::detect().under_launcher()) {
    world.mpi_ = std::make_unique<comm::MpiWorld>();
  } else {
    world.alone_ = std::make_unique<comm::ThreadsWorld>(1);
  }
  return world;
}

std::unique_ptr<comm::Communicator> World::make_communicator() {
  return mpi_ != nullptr ? mpi_->make_communicator() : alone_->make_communicator(0);
}

std::unique_ptr<comm::Control> World::make_control() {
  return mpi_ != nullptr ? mpi_->make_control() : alone_->make_control(0);
}

RankDevice::RankDevice(const Config& config, int rank)
    : base_(make_device(config, RankEnvironment::detect())), outer_(base_.get()) {
  if (config.debug.order_check) outer_ = &checked_.emplace(*outer_, CheckedDevice::Policy::kThrow);
  if (config.debug.jitter_us > 0) {
    outer_ =
        &jittery_.emplace(*outer_, std::chrono::microseconds(config.debug.jitter_us), static_cast<std::uint64_t>(rank));
  }
}

}  // namespace strake::launch
