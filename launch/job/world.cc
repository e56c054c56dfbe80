#include "launch/job/world.h"

#include <chrono>
#include <string>
#include <vector>

#include "comm/mpi/mpi_world.h"
#include "comm/threads/threads_world.h"
#include "launch/job/agreement.h"
#include "launch/job/devices.h"
#include "launch/job/exit_report.h"
#include "launch/job/rank_environment.h"
#include "launch/run/run_folder.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/io/files.h"

namespace strake::launch {
namespace {

int run_in(std::unique_ptr<comm::Communicator> host, comm::Control& control, RankWatch& watch, const RankWork& work) {
  try {
    if (const std::string missing = missing_ranks(control.size()); !missing.empty()) throw ConfigError(missing);
    JobRank job{std::move(host), control, watch};
    const auto section = watch.enter("start-up", Patience::kLong);
    return work(job);
  } catch (const AgreedError& error) {
    // Known to all: one report, everyone leaves.
    return control.rank() == 0 ? report_error(error, 0, 1) : static_cast<int>(error.exit_code());
  } catch (const std::exception& error) {
    end_job(error, control, &watch);
    throw;
  }
}

}  // namespace

int run_as_rank(const RankWork& work, std::chrono::milliseconds hang_limit) {
  const RankEnvironment environment = RankEnvironment::detect();
  // Before anything that can wait or take long: signals are heard and hangs are noticed from here on.
  RankWatch watch({.rank = environment.rank,
                   .ranks = environment.ranks,
                   .end_job = [](int exit_code) { comm::MpiWorld::abort(exit_code); },
                   .limit = hang_limit,
                   .after = StopSignals::After::kIgnore});
  if (environment.under_launcher()) {
    const auto section = watch.enter("MPI_Init and MPI_Finalize", Patience::kLong);
    comm::MpiWorld world;
    auto communicator = world.make_communicator();
    const auto control = world.make_control();
    const RankWatch::Peers peers(watch, world.make_roll_call());
    return run_in(std::move(communicator), *control, watch, work);
  }
  comm::ThreadsWorld world(1);
  const auto control = world.make_control(0);
  return run_in(world.make_communicator(0), *control, watch, work);
}

RankDevice::RankDevice(const Config& config, comm::Control& control, const std::filesystem::path& run_folder,
                       const RankEnvironment& environment) {
  const int rank = control.rank();
  std::string gpus_before;
  agree(control, [&] {
    PosixFiles files;
    if (rank == 0 && !run_folder.empty()) gpus_before = checkpoint_from_gpus(files, run_folder);
  });
  gpus_before = control.broadcast(gpus_before, 0);
  std::vector<GpuOffer> offers;
  for (const std::string& text : control.all_gather(offer_gpu(config.run.device, environment).to_text())) {
    offers.push_back(GpuOffer::from_text(text));
  }
  agree(control, [&] {
    const ChosenDevice chosen = choose_device(
        config.run.device, offers, gpus_before,
        "run.device = ", config.comm.backend == CommBackend::kStaged ? GpuSharing::kAllowed : GpuSharing::kRefused);
    require_backend_for(config.comm.backend, chosen);
    if (config.run.device == DeviceChoice::kAuto) no_gpus_because_ = chosen.no_gpus_because;
    require_switches(config.comm, chosen, control.size());
    const bool nccl = control.size() > 1 && config.comm.backend != CommBackend::kStaged;
    base_ = make_device(chosen.kind, {.deterministic = config.train.deterministic,
                                      .shared = shares_gpu(static_cast<std::size_t>(rank), offers),
                                      .registrable = nccl && config.comm.buffers != CommBuffers::kPlain});
  });
  outer_ = base_.get();
  if (config.debug.order_check) outer_ = &checked_.emplace(*outer_, CheckedDevice::Policy::kThrow);
  if (config.debug.jitter_us > 0) {
    outer_ =
        &jittery_.emplace(*outer_, std::chrono::microseconds(config.debug.jitter_us), static_cast<std::uint64_t>(rank));
  }
}

}  // namespace strake::launch
