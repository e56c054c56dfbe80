#include "launch/bench/bench_kernels.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "launch/bench/bench_job.h"
#include "launch/bench/gpu_sampler.h"
#include "launch/bench/kernel_blocks.h"
#include "launch/bench/kernel_comparison.h"
#include "launch/bench/kernel_figures.h"
#include "launch/bench/step_figures.h"
#include "launch/job/agreement.h"
#include "launch/job/devices.h"
#include "launch/job/rank_environment.h"
#include "launch/job/same_on_all_ranks.h"
#include "launch/job/world.h"
#include "launch/machine/machine.h"
#include "launch/machine/machine_report.h"
#include "launch/report/mfu.h"
#include "launch/train/train.h"
#include "runtime/device/timed_device.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;
using Part = KernelBlocks::Part;

// Of a GPU, which tells no delays of the host from work: enough that the host stays ahead of short operations, and no
// more than a third of what a stream's queue takes where an operation launches several kernels.
constexpr int kLeadOperations = 80;

struct KernelBench {
  Config config;  // as the user means it
  KernelJob job;
  TimedSteps steps;
  std::vector<double> marks_ms;                // each of an empty interval
  std::optional<GpuLoad> as_it_is, timed;      // what the GPU did in the first two blocks
  std::map<std::string, std::string> kernels;  // chosen by measurement
};

double ms(Nanoseconds time) { return std::chrono::duration<double, std::milli>(time).count(); }

// What would be timed beside the operations of steps.
void require_only_steps(const Config& config) {
  if (config.checkpoint.every == 0 && !config.checkpoint.at_end && config.eval.every == 0) return;
  throw ConfigError("bench kernels: only steps are measured; leave out checkpoint.* and eval.*");
}

// Samples the GPU, if there is one, from one step's report to another's.
class BlockSampler {
 public:
  BlockSampler(Device& device, std::int64_t begin, std::int64_t end) : begin_(begin), end_(end) {
    if (auto sensor = make_gpu_sensor(device)) sampler_.emplace(std::move(sensor));
  }
  void on_report(std::int64_t step) {
    if (!sampler_.has_value()) return;
    if (step + 1 == begin_) sampler_->start();
    if (step + 1 == end_) load_ = sampler_->stop();
  }
  const std::optional<GpuLoad>& load() const { return load_; }

 private:
  std::int64_t begin_, end_;
  std::optional<GpuSampler> sampler_;
  std::optional<GpuLoad> load_;
};

void add_timed(KernelBench& bench, const TimedDevice& timed, const StepReport& report) {
  const TimedDevice::Times times = timed.times(report.step);
  const std::vector<DeclaredOperation>& operations = timed.operations(report.step);
  if (bench.steps.operations.empty()) bench.steps.operations = operations;
  STRAKE_CHECK(operations == bench.steps.operations, "two steps are not made of the same operations");
  std::vector<double>& times_ms = bench.steps.times_ms.emplace_back();
  for (const Nanoseconds time : times.operations) times_ms.push_back(ms(time));
  for (const Nanoseconds time : times.empty) bench.marks_ms.push_back(ms(time));
  RankStep step = rank_step(report);
  step.wall_ms -= ms(times.held);
  step.class_ms[static_cast<std::size_t>(StepClass::kForward)] -= ms(times.held);  // which the first operation is of
  bench.job.timed.push_back(step);
}

// Trains and measures.
KernelBench measure(const BenchKernelsArguments& arguments, const Config& config, RankDevice& device,
                    comm::Communicator& communicator, comm::Control& control, RankWatch& watch, Files& files) {
  const BenchFolder folder(files, config, control);
  const KernelBlocks blocks{.warmup = arguments.warmup, .steps = arguments.steps};
  const Config run = folder.run_of(config, blocks.total(), control);

  KernelBench bench{
      .config = config, .job = {}, .steps = {}, .marks_ms = {}, .as_it_is = {}, .timed = {}, .kernels = {}};
  const std::optional<GpuFacts> gpu = current_gpu(device.base());
  bench.job.warmup = arguments.warmup;
  bench.job.device = gpu.has_value() ? gpu->name : device.base().description();
  bench.job.ranks = control.size();
  bench.job.rates.flops = peak_flops(device.base());
  bench.job.rates.flops_are_measured = !gpu.has_value();
  bench.job.rates.flops_name = peak_name(device.base().kind(), bench.job.rates.flops);
  bench.job.rates.memory = memory_rates(device.base());

  TimedDevice timed(device.outer(), {.stream = "compute", .lead_operations = gpu.has_value() ? kLeadOperations : 0});
  BlockSampler as_it_is(device.base(), blocks.before(), blocks.before() + blocks.steps);
  BlockSampler while_timed(device.base(), blocks.timed(), blocks.timed() + blocks.steps);
  const TrainHooks hooks{.stop_requested = {},
                         .wrap_train_source = {},
                         .before_step =
                             [&](std::int64_t step) {
                               if (blocks.times_operations(step)) {
                                 timed.begin_run(step);
                               } else {
                                 timed.end_run();
                               }
                             },
                         .before_first_step = {},
                         .on_report =
                             [&](const StepReport& report) {  // a step has ended, and the next runs
                               as_it_is.on_report(report.step);
                               while_timed.on_report(report.step);
                               const Part part = blocks.part(report.step);
                               if (part == Part::kBefore) bench.job.before.push_back(rank_step(report));
                               if (part == Part::kTimed) add_timed(bench, timed, report);
                               if (part == Part::kAfter) bench.job.after.push_back(rank_step(report));
                             },
                         .on_step = [](const StepSummary& step) { end_if_stopped_by(step.stop_signal); },
                         .peak_flops = bench.job.rates.flops};
  const TrainResult result = train_rank(
      run, {timed, communicator, control, files, Logger(control.rank(), control.size(), LogLevel::kWarning), &watch},
      hooks, arguments.command_line);
  end_if_stopped_by(result.stop_signal);
  bench.as_it_is = as_it_is.load();
  bench.timed = while_timed.load();
  bench.steps.mark_ms = median_of(std::move(bench.marks_ms));
  if (const KernelState* kernels = device.base().kernel_state()) bench.kernels = kernels->choices();
  return bench;
}

Json or_null(const std::optional<GpuLoad>& load) { return load.has_value() ? to_json(*load) : Json(); }

Json report_json(const BenchKernelsArguments& arguments, const KernelBench& bench, const KernelFigures& figures,
                 const std::optional<KernelComparison>& comparison) {
  Json out{{"format", "strake-bench-kernels-1"},       {"measured", utc_now()},
           {"command_line", arguments.command_line},   {"config", Json::parse(config_to_json(bench.config))},
           {"config_hash", config_hash(bench.config)}, {"launcher", RankEnvironment::detect().launcher_name()}};
  out.update(to_json(figures));
  out["gpu"] = or_null(bench.as_it_is);
  out["gpu_timed"] = or_null(bench.timed);
  out["comparison"] = comparison.has_value() ? to_json(*comparison) : Json();
  out["kernels"] = bench.kernels;
  out["build"] = build_json();
  out["hardware"] = hardware_json(read_gpus());
  out["libraries"] = libraries_json();
  return out;
}

std::string report_text(const BenchKernelsArguments& arguments, const KernelBench& bench, const KernelFigures& figures,
                        const std::optional<KernelComparison>& comparison) {
  const Build build = build_description();
  std::string libraries;
  for (const auto& [name, version] : library_versions()) {
    libraries += fmt::format("{}{} {}", libraries.empty() ? "" : ", ", name, version);
  }
  std::string out =
      fmt::format("bench kernels: {} on {}{}\n{}\n", arguments.config_path, figures.job.device,
                  figures.job.ranks == 1 ? "" : fmt::format(", rank 0 of {}", figures.job.ranks), table(figures));
  const auto row = [&](const char* title, const std::string& text) { out += fmt::format("  {:<15}{}\n", title, text); };
  if (bench.as_it_is.has_value()) row("GPU as it is", describe(*bench.as_it_is));
  if (bench.timed.has_value()) row("GPU timed", describe(*bench.timed));
  row("data", fmt::format("{}, config hash {}", fmt::join(bench.config.data.train, ", "), config_hash(bench.config)));
  row("strake", fmt::format("{} {}, {} build", build.version, build.commit, build.type));
  row("libraries", libraries);
  if (comparison.has_value()) return out + "\n" + table(*comparison);
  out.pop_back();
  return out;
}

Facts option_facts(const BenchKernelsArguments& arguments) {
  return {{"--warmup", fmt::format("{}", arguments.warmup)},
          {"--steps", fmt::format("{}", arguments.steps)},
          {"--random-data", fmt::format("{}", arguments.random_data)}};
}

int bench_kernels(const BenchKernelsArguments& arguments, JobRank& job) {
  comm::Control& control = job.control;
  PosixFiles files;
  Config config;
  std::optional<KernelTimes> earlier;
  agree(control, [&] {
    config = load_bench_config(arguments.config_path, arguments.overrides, arguments.random_data);
    require_only_steps(config);
    if (control.rank() == 0 && !arguments.against.empty()) earlier = read_kernel_times(files, arguments.against);
  });
  require_same_on_all_ranks(control, program_facts("bench kernels"), kSameProgram);
  require_same_on_all_ranks(control, option_facts(arguments), kSameOptions);
  require_same_on_all_ranks(control, config_facts(config), kSameConfig);
  job.watch.set_limit(hang_limit(config));
  RankDevice device(config, control);
  const auto communicator = make_communicator(device.base(), control, std::move(job.host), config.comm);
  const RankWatch::Communication communication(job.watch, *communicator);
  KernelBench bench = measure(arguments, config, device, *communicator, control, job.watch, files);
  if (control.rank() != 0) return 0;
  const KernelFigures figures = figures_of(std::move(bench.job), bench.steps);
  std::optional<KernelComparison> comparison;
  if (earlier.has_value()) {
    comparison = compare(arguments.against, std::move(*earlier), KernelTimes::of(figures, config_hash(bench.config)));
  }
  std::cout
      << (arguments.json
              ? report_json(arguments, bench, figures, comparison).dump(2, ' ', false, Json::error_handler_t::replace)
              : report_text(arguments, bench, figures, comparison))
      << '\n';
  return 0;
}

}  // namespace

int run_bench_kernels(const BenchKernelsArguments& arguments) {
  return run_as_rank([&](JobRank& job) { return bench_kernels(arguments, job); });
}

}  // namespace strake::launch
