#include "launch/train/train.h"

#include <fmt/format.h>

#include <iostream>
#include <utility>

#include "launch/job/agreement.h"
#include "launch/job/devices.h"
#include "launch/job/job_inputs.h"
#include "launch/job/same_on_all_ranks.h"
#include "launch/job/world.h"
#include "launch/report/comm_timeline.h"
#include "launch/report/live_view.h"

namespace strake::launch {
namespace {

void print_schedule(const Config& config, Device& device, comm::Communicator& communicator, int rank, int ranks) {
  const JobInputs inputs = JobInputs::open(config, rank, ranks, device.kind());
  const StepPlan plan = Trainer::plan(inputs.job, communicator, inputs.sources(), &device);
  const Trainer trainer(inputs.job, device, communicator, inputs.sources(), &plan);
  if (rank != 0) return;
  std::cout << plan.recording.describe() << "\nmemory of each rank:\n"
            << trainer.memory_table().describe() << "\n\nbuckets:\n"
            << trainer.buckets().describe();
  if (const std::string at_end = describe_at_end(trainer); ranks > 1 && !at_end.empty()) {
    std::cout << "exposed by structure, final when backward ends: " << at_end << '\n';
  }
  std::cout << '\n';
}

int train(const TrainArguments& arguments, JobRank& job) {
  comm::Control& control = job.control;
  const int rank = control.rank(), ranks = control.size();
  Config config;
  agree(control, [&] { config = load_config(arguments.config_path, arguments.overrides); });
  require_same_on_all_ranks(control, program_facts(arguments.print_schedule ? "train --print-schedule" : "train"),
                            kSameProgram);
  require_same_on_all_ranks(control, config_facts(config), kSameConfig);
  RankDevice device(config, control, arguments.print_schedule ? "" : config.run.dir);
  const std::unique_ptr<comm::Communicator> communicator =
      make_communicator(device.base(), control, std::move(job.host), config.comm);
  const RankWatch::Communication communication(job.watch, *communicator);
  if (arguments.print_schedule) {
    agree(control, [&] { print_schedule(config, device.base(), *communicator, rank, ranks); });
    return 0;
  }

  if (rank == 0 && !device.no_gpus_because().empty()) {
    say_early(config.log.format, Logger(), LogLevel::kInfo, "computing on the CPU: " + device.no_gpus_because());
  }
  if (const std::string slow = why_slow(*communicator); rank == 0 && !slow.empty()) {
    say_early(config.log.format, Logger(), LogLevel::kWarning, slow);
  }
  PosixFiles files;
  const TrainHooks hooks{.stop_requested = {},
                         .wrap_train_source = {},
                         .before_step = {},
                         .before_first_step = {},
                         .on_report = {},
                         .on_step = {},
                         .peak_flops = peak_flops(device.base())};
  const TrainResult result =
      train_rank(config, {device.outer(), *communicator, control, files, Logger(rank, ranks), &job.watch}, hooks,
                 arguments.command_line);
  return static_cast<int>(result.stop_signal != 0 ? ExitCode::kPreempted : ExitCode::kDone);
}

}  // namespace

std::optional<RankWatch::Section> RankParts::at(std::string what, Patience patience) const {
  if (watch == nullptr) return std::nullopt;
  return watch->enter(std::move(what), patience);
}

void RankParts::check() const {
  device.check();
  communicator.check();
}

int run_train(const TrainArguments& arguments) {
  // Of this rank's configuration, for what may hang before the ranks can compare them. What is wrong with it they say
  // then.
  Config config;
  try {
    config = load_config(arguments.config_path, arguments.overrides);
  } catch (const ConfigError&) {
  }
  return run_as_rank([&](JobRank& job) { return train(arguments, job); }, hang_limit(config));
}

}  // namespace strake::launch
