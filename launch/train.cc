#include "launch/train.h"

#include <fmt/format.h>

#include <iostream>

#include "comm/mpi/mpi_world.h"
#include "comm/threads/threads_world.h"
#include "launch/agreement.h"
#include "launch/devices.h"
#include "launch/exit_report.h"
#include "launch/job_inputs.h"
#include "launch/rank_environment.h"
#include "launch/signals.h"
#include "runtime/device/jitter_device.h"
#include "runtime/device/order_checker.h"

namespace strake::launch {
namespace {

// The ranks of this job: those that a launcher started, or this process alone.
struct World {
  std::unique_ptr<comm::MpiWorld> mpi;
  std::unique_ptr<comm::ThreadsWorld> alone;

  static World join() {
    World world;
    if (RankEnvironment::detect().under_launcher()) {
      world.mpi = std::make_unique<comm::MpiWorld>();
    } else {
      world.alone = std::make_unique<comm::ThreadsWorld>(1);
    }
    return world;
  }
  std::unique_ptr<comm::Communicator> make_communicator() {
    return mpi != nullptr ? mpi->make_communicator() : alone->make_communicator(0);
  }
  std::unique_ptr<comm::Control> make_control() {
    return mpi != nullptr ? mpi->make_control() : alone->make_control(0);
  }
};

void print_schedule(const Config& config, Device& device, comm::Communicator& communicator, int rank, int ranks) {
  const JobInputs inputs = JobInputs::open(config, rank, ranks, device.kind());
  const StepPlan plan = Trainer::plan(inputs.job, communicator, inputs.sources(), &device);
  const Trainer trainer(inputs.job, device, communicator, inputs.sources(), &plan);
  if (rank != 0) return;
  std::cout << plan.recording.describe() << "\nmemory of each rank:\n"
            << trainer.memory_table() << "\n\nbuckets:\n"
            << trainer.buckets().describe() << '\n';
}

int train(const TrainArguments& arguments, std::unique_ptr<comm::Communicator> host_communicator,
          comm::Control& control) {
  const int rank = control.rank(), ranks = control.size();
  Config config;
  agree(control, [&] { config = load_config(arguments.config_path, arguments.overrides); });
  std::unique_ptr<Device> base;
  agree(control, [&] { base = make_device(config, RankEnvironment::detect()); });
  const std::unique_ptr<comm::Communicator> communicator =
      make_communicator(*base, control, std::move(host_communicator));
  if (arguments.print_schedule) {
    agree(control, [&] { print_schedule(config, *base, *communicator, rank, ranks); });
    return 0;
  }

  Device* device = base.get();
  std::optional<CheckedDevice> checked;
  std::optional<JitterDevice> jittery;
  if (config.debug.order_check) device = &checked.emplace(*device, CheckedDevice::Policy::kThrow);
  if (config.debug.jitter_us > 0) {
    device =
        &jittery.emplace(*device, std::chrono::microseconds(config.debug.jitter_us), static_cast<std::uint64_t>(rank));
  }

  const StopSignals signals;
  PosixFiles files;
  const TrainHooks hooks{.stop_requested = [&signals] { return signals.requested(); },
                         .wrap_train_source = {},
                         .before_step = {},
                         .before_first_step = {},
                         .on_report = {},
                         .peak_flops = peak_flops(*base)};
  const TrainResult result =
      train_rank(config, {*device, *communicator, control, files, Logger(rank, ranks)}, hooks, arguments.command_line);
  return static_cast<int>(result.stop_signal != 0 ? ExitCode::kPreempted : ExitCode::kDone);
}

}  // namespace

int run_train(const TrainArguments& arguments) {
  World world = World::join();
  auto communicator = world.make_communicator();
  const auto control = world.make_control();
  try {
    return train(arguments, std::move(communicator), *control);
  } catch (const AgreedError& error) {
    // Known to all: one report, everyone leaves.
    return control->rank() == 0 ? report_error(error, 0, 1) : static_cast<int>(error.exit_code());
  }
}

}  // namespace strake::launch
