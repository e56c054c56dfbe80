#include "launch/bench/bench_step.h"

#include <fmt/format.h>

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "comm/stub_communicator.h"
#include "launch/bench/bench_job.h"
#include "launch/bench/calibration.h"
#include "launch/bench/gpu_sampler.h"
#include "launch/bench/step_blocks.h"
#include "launch/bench/step_figures.h"
#include "launch/job/agreement.h"
#include "launch/job/comm_switches.h"
#include "launch/job/devices.h"
#include "launch/job/job_inputs.h"
#include "launch/job/rank_environment.h"
#include "launch/job/same_on_all_ranks.h"
#include "launch/job/world.h"
#include "launch/machine/machine.h"
#include "launch/machine/machine_report.h"
#include "launch/report/mfu.h"
#include "launch/train/train.h"
#include "runtime/base/host_name.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

// What the command line may not ask for where nothing travels between ranks.
void require_possible(Communication communication, const Config& config, int ranks) {
  if (communication == Communication::kReal) return;
  const char* option = communication == Communication::kStubbed ? "--stub-comm" : "--calibrate";
  if (config.checkpoint.every != 0 || config.checkpoint.at_end) {
    throw ConfigError(fmt::format(
        "{}: ranks that are told nothing of each other hold different weights, which no checkpoint keeps; leave out "
        "checkpoint.*",
        option));
  }
  if (communication == Communication::kCalibrated && ranks == 1) {
    throw ConfigError("--calibrate: one rank communicates with nobody; start several (mpirun -n 2 strake bench step)");
  }
}

struct StepBench {
  Config config;  // as the user means it
  StepJob job;
  RankMeasurement own;
  RankMeasurement own_stubbed;                 // of steps alone; none unless calibrated
  std::map<std::string, std::string> kernels;  // chosen by measurement
  Connection connection;
};

// Trains and measures.
StepBench measure(const BenchStepArguments& arguments, const Config& config, RankDevice& device,
                  comm::StubCommunicator& communicator, comm::Control& control, RankWatch& watch, Files& files) {
  const int rank = control.rank(), ranks = control.size();
  const BenchFolder folder(files, config, control);
  const StepBlocks blocks{.warmup = arguments.warmup,
                          .steps = arguments.steps,
                          .repeats = arguments.repeats,
                          .communication = arguments.communication};
  const Config run = folder.run_of(config, blocks.total(), control);

  StepBench bench{.config = config, .job = {}, .own = {}, .own_stubbed = {}, .kernels = {}, .connection = {}};
  bench.job.stub_comm = arguments.communication == Communication::kStubbed;
  bench.job.warmup = arguments.warmup;
  bench.job.steps = arguments.steps;
  bench.job.repeats = arguments.repeats;
  bench.job.peak_flops = peak_flops(device.base());
  bench.job.peak_name = peak_name(device.base().kind(), bench.job.peak_flops);
  agree(control, [&] {
    const JobInputs inputs = JobInputs::open(run, rank, ranks, device.base().target());
    bench.job.tokens_per_step = inputs.job.derived.tokens_per_step;
    bench.job.flops_per_token = inputs.job.shape.model_flops_per_token();
  });
  bench.own.rank = rank;
  bench.own.host = host_name();
  bench.own.device = device.base().description();

  Trainer* trainer = nullptr;  // while it trains
  std::optional<GpuSampler> sampler;
  if (auto sensor = make_gpu_sensor(device.base())) sampler.emplace(std::move(sensor));
  const TrainHooks hooks{.stop_requested = {},
                         .wrap_train_source = {},
                         .before_step = [&](std::int64_t step) { communicator.stub(blocks.stubbed(step)); },
                         .before_first_step =
                             [&](Trainer& started) {
                               trainer = &started;
                               bench.own.device_memory_bytes = trainer->memory().size_bytes(MemoryKind::kDevice);
                               bench.job.comm_bytes = CommBytes::of(*trainer);
                             },
                         .on_report =
                             [&](const StepReport& report) {  // a step has ended, and the next runs
                               if (sampler.has_value() && report.step + 1 == arguments.warmup) sampler->start();
                               RankMeasurement& measured =
                                   blocks.stubbed(report.step) && !bench.job.stub_comm ? bench.own_stubbed : bench.own;
                               if (blocks.counted(report.step)) {
                                 measured.steps.push_back(rank_step(report));
                                 measured.timelines.push_back(StepTimeline::of(report));
                               }
                               if (report.step + 1 < run.train.steps) return;
                               if (sampler.has_value()) bench.own.gpu = sampler->stop();
                               bench.own.memory = trainer->memory_table();
                             },
                         // Before the run keeps its last step: nobody asked a bench for a checkpoint.
                         .on_step = [](const StepSummary& step) { end_if_stopped_by(step.stop_signal); },
                         .peak_flops = bench.job.peak_flops};
  const TrainResult result =
      train_rank(run, {device.outer(), communicator, control, files, Logger(rank, ranks, LogLevel::kWarning), &watch},
                 hooks, arguments.command_line);
  end_if_stopped_by(result.stop_signal);
  if (const KernelState* kernels = device.base().kernel_state()) bench.kernels = kernels->choices();
  return bench;
}

Json report_json(const BenchStepArguments& arguments, const StepBench& bench, const StepFigures& figures,
                 const std::optional<Calibration>& calibration) {
  Json out{{"format", "strake-bench-step-1"},          {"measured", utc_now()},
           {"command_line", arguments.command_line},   {"config", Json::parse(config_to_json(bench.config))},
           {"config_hash", config_hash(bench.config)}, {"launcher", RankEnvironment::detect().launcher_name()}};
  out.update(to_json(figures));
  out["switches"] = switches_json(bench.config.comm, bench.connection);
  out["calibration"] = calibration.has_value() ? to_json(*calibration) : Json();
  out["kernels"] = bench.kernels;
  out["build"] = build_json();
  out["hardware"] = hardware_json(read_gpus());
  out["libraries"] = libraries_json();
  return out;
}

std::string report_text(const BenchStepArguments& arguments, const StepBench& bench, const StepFigures& figures,
                        const std::optional<Calibration>& calibration) {
  const Build build = build_description();
  std::string libraries;
  for (const auto& [name, version] : library_versions()) {
    libraries += fmt::format("{}{} {}", libraries.empty() ? "" : ", ", name, version);
  }
  const GpuMachine gpus = read_gpus();
  std::string switches = switches_text(bench.config.comm, bench.connection);
  if (!switches.empty()) switches = "; " + switches;
  std::string links;
  for (const GpuLink& link : gpus.links) links += fmt::format("; {} - {}: {}", link.first, link.second, link.path);
  return fmt::format(
      "bench step: {} on {} rank{}, {} host{}, {}{}{}\n  {:<15}{}, config hash {}\n{}\n  {:<15}{} {}, {} build\n"
      "  {:<15}{}{}",
      arguments.config_path, figures.ranks.size(), figures.ranks.size() == 1 ? "" : "s", figures.hosts,
      figures.hosts == 1 ? "" : "s", figures.ranks.front().device, links, switches, "data",
      fmt::format("{}", fmt::join(bench.config.data.train, ", ")), config_hash(bench.config),
      table(figures) + (calibration.has_value() ? "\n" + table(*calibration) : ""), "strake", build.version,
      build.commit, build.type, "libraries", libraries, gpus.driver.empty() ? "" : ", driver " + gpus.driver);
}

std::vector<RankMeasurement> measured_by_all(comm::Control& control, const RankMeasurement& own) {
  std::vector<RankMeasurement> out;
  for (const std::string& text : control.all_gather(own.to_text())) out.push_back(RankMeasurement::from_text(text));
  return out;
}

Facts option_facts(const BenchStepArguments& arguments) {
  const Communication communication = arguments.communication;
  return {{"--warmup", fmt::format("{}", arguments.warmup)},
          {"--steps", fmt::format("{}", arguments.steps)},
          {"--repeats", fmt::format("{}", arguments.repeats)},
          {"--stub-comm", fmt::format("{}", communication == Communication::kStubbed)},
          {"--calibrate", fmt::format("{}", communication == Communication::kCalibrated)},
          {"--random-data", fmt::format("{}", arguments.random_data)}};
}

int bench_step(const BenchStepArguments& arguments, JobRank& job) {
  comm::Control& control = job.control;
  Config config;
  agree(control, [&] {
    config = load_bench_config(arguments.config_path, arguments.overrides, arguments.random_data);
    require_possible(arguments.communication, config, control.size());
  });
  require_same_on_all_ranks(control, program_facts("bench step"), kSameProgram);
  require_same_on_all_ranks(control, option_facts(arguments), kSameOptions);
  require_same_on_all_ranks(control, config_facts(config), kSameConfig);
  job.watch.set_limit(hang_limit(config));
  RankDevice device(config, control);
  comm::StubCommunicator communicator(make_communicator(device.base(), control, std::move(job.host), config.comm));
  const RankWatch::Communication communication(job.watch, communicator);
  PosixFiles files;
  StepBench bench = measure(arguments, config, device, communicator, control, job.watch, files);
  std::vector<RankMeasurement> ranks = measured_by_all(control, bench.own);
  std::optional<Calibration> calibration;
  if (arguments.communication == Communication::kCalibrated) {
    calibration =
        calibration_of(arguments.steps, arguments.repeats, ranks, measured_by_all(control, bench.own_stubbed));
  }
  if (control.rank() != 0) return 0;
  const StepFigures figures = figures_of(bench.job, std::move(ranks));
  bench.connection = {.backend = communicator.backend(),
                      .device = device.base().kind(),
                      .ranks = control.size(),
                      .hosts = static_cast<int>(figures.hosts)};
  std::cout
      << (arguments.json
              ? report_json(arguments, bench, figures, calibration).dump(2, ' ', false, Json::error_handler_t::replace)
              : report_text(arguments, bench, figures, calibration))
      << '\n';
  return 0;
}

}  // namespace

int run_bench_step(const BenchStepArguments& arguments) {
  return run_as_rank([&](JobRank& job) { return bench_step(arguments, job); });
}

}  // namespace strake::launch
