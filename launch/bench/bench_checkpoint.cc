#include "launch/bench/bench_checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <utility>

#include "checkpoint/directory.h"
#include "checkpoint/manifest.h"
#include "launch/bench/bench_job.h"
#include "launch/job/agreement.h"
#include "launch/job/devices.h"
#include "launch/job/rank_environment.h"
#include "launch/job/same_on_all_ranks.h"
#include "launch/job/world.h"
#include "launch/machine/machine.h"
#include "launch/machine/machine_report.h"
#include "launch/run/metrics.h"
#include "launch/run/run_folder.h"
#include "launch/train/train.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kOrderSeed = 17;
constexpr const char* kWithout = "none";

struct Variety {
  std::string strategy, folder;
};

// The pages of `path` are read from the disk next time. False: they have no other place.
bool drop_from_page_cache(const std::filesystem::path& path) {
  struct statfs status {};
  if (::statfs(path.c_str(), &status) != 0 || status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC)
    return false;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool dropped = ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
  ::close(fd);
  return dropped;
}

class CheckpointBench {
 public:
  CheckpointBench(const BenchCheckpointArguments& arguments, const Config& config, RankDevice& device,
                  comm::Communicator& communicator, comm::Control& control, RankWatch& watch)
      : arguments_(arguments),
        config_(config),
        device_(device),
        communicator_(communicator),
        control_(control),
        watch_(watch) {}

  CheckpointRun measure(const Variety& variety, std::int64_t repeat) {
    CheckpointRun out{.strategy = variety.strategy, .folder = variety.folder, .repeat = repeat, .metrics = {}};
    Config config = config_;
    if (!variety.folder.empty()) config.run.dir = (std::filesystem::path(variety.folder) / "run").string();
    const BenchFolder folder(files_, config, control_);
    Config run = folder.run_of(config, arguments_.blocks.steps(), control_);
    run.checkpoint.at_end = false;
    run.checkpoint.every = 0;
    if (variety.strategy != kWithout) {
      run.checkpoint.every = arguments_.blocks.every;
      run.checkpoint.strategy = strategy_named(variety.strategy);
    }
    train(run);
    agree(control_, [&] {
      if (control_.rank() == 0) out.metrics = read_metrics(files_, metrics_path(run.run.dir));
    });
    const std::filesystem::path checkpoints = checkpoint_folder(run.run.dir);
    const std::vector<std::int64_t> steps =
        variety.strategy == kWithout ? std::vector<std::int64_t>{} : checkpoint::committed_steps(files_, checkpoints);
    if (steps.empty()) return out;
    const std::filesystem::path newest = checkpoints / checkpoint::step_name(steps.front());
    // Nothing is left to train: it is opened, verified, read and on the device.
    run.train.steps = steps.front();
    run.checkpoint.every = 0;
    run.checkpoint.resume = Resume::kMust;
    out.warm_load_s = train(run);
    std::vector<std::filesystem::path> written;
    agree(control_, [&] {
      for (const checkpoint::FileRecord& file : checkpoint::read_manifest(files_, newest).files) {
        out.bytes += file.size_bytes;
        written.push_back(newest / file.name);
      }
    });
    const bool dropped = std::ranges::all_of(written, drop_from_page_cache);
    if (const auto told = control_.all_gather(dropped ? "dropped" : "not"); std::ranges::count(told, "not") == 0) {
      out.cold_load_s = train(run);
    }
    return out;
  }

  static CheckpointStrategy strategy_named(const std::string& name) {
    for (const auto& [strategy, its_name] : kNames) {
      if (name == its_name) return strategy;
    }
    throw ConfigError(fmt::format("--strategies: there is no {}", name));
  }

 private:
  static constexpr std::pair<CheckpointStrategy, const char*> kNames[] = {{CheckpointStrategy::kSync, "sync"},
                                                                          {CheckpointStrategy::kPinned, "pinned"},
                                                                          {CheckpointStrategy::kLazy, "lazy"},
                                                                          {CheckpointStrategy::kDevice, "device"},
                                                                          {CheckpointStrategy::kAuto, "auto"}};

  // How long loading took.
  double train(const Config& run) {
    const TrainHooks hooks{.stop_requested = {},
                           .wrap_train_source = {},
                           .before_step = {},
                           .before_first_step = {},
                           .on_report = {},
                           .on_step = [](const StepSummary& step) { end_if_stopped_by(step.stop_signal); }};
    const TrainResult result = train_rank(run,
                                          {device_.outer(), communicator_, control_, files_,
                                           Logger(control_.rank(), control_.size(), LogLevel::kWarning), &watch_},
                                          hooks, arguments_.command_line);
    end_if_stopped_by(result.stop_signal);
    return result.load_s;
  }

  const BenchCheckpointArguments& arguments_;
  const Config& config_;
  RankDevice& device_;
  comm::Communicator& communicator_;
  comm::Control& control_;
  RankWatch& watch_;
  PosixFiles files_;
};

// Each repeat has every variety once, in an order of its own.
std::vector<CheckpointRun> measure_all(const BenchCheckpointArguments& arguments, const std::vector<Variety>& varieties,
                                       CheckpointBench& bench, bool tells) {
  std::vector<std::vector<CheckpointRun>> by_variety(varieties.size());
  std::mt19937_64 random(kOrderSeed);  // the same on all ranks
  std::vector<std::size_t> order(varieties.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (std::int64_t repeat = 0; repeat < arguments.repeats; ++repeat) {
    std::ranges::shuffle(order, random);
    for (const std::size_t i : order) {
      if (tells) {
        std::cerr << fmt::format("strake: repeat {} of {}: {}{}\n", repeat + 1, arguments.repeats,
                                 varieties[i].strategy,
                                 varieties[i].folder.empty() ? "" : " in " + varieties[i].folder);
      }
      by_variety[i].push_back(bench.measure(varieties[i], repeat));
    }
  }
  std::vector<CheckpointRun> out;
  for (std::vector<CheckpointRun>& runs : by_variety) std::ranges::move(runs, std::back_inserter(out));
  return out;
}

std::vector<Variety> varieties_of(const BenchCheckpointArguments& arguments) {
  const std::vector<std::string> folders = arguments.folders.empty() ? std::vector<std::string>{""} : arguments.folders;
  std::vector<Variety> out{{kWithout, folders.front()}};
  for (const std::string& folder : folders) {
    for (const std::string& strategy : arguments.strategies) out.push_back({strategy, folder});
  }
  return out;
}

Facts option_facts(const BenchCheckpointArguments& arguments) {
  return {{"--strategies", fmt::format("{}", fmt::join(arguments.strategies, ","))},
          {"--folders", fmt::format("{}", fmt::join(arguments.folders, ","))},
          {"--every", fmt::format("{}", arguments.blocks.every)},
          {"--saves", fmt::format("{}", arguments.blocks.saves)},
          {"--repeats", fmt::format("{}", arguments.repeats)},
          {"--random-data", fmt::format("{}", arguments.random_data)}};
}

// What the bench itself sets.
void require_free(const std::vector<std::string>& overrides) {
  for (const std::string& each : overrides) {
    for (const char* key : {"checkpoint.every", "checkpoint.strategy", "checkpoint.at_end", "checkpoint.resume"}) {
      if (!each.starts_with(key)) continue;
      throw ConfigError(fmt::format("{}: the bench sets it; use --every and --strategies", each));
    }
  }
}

Json report_json(const BenchCheckpointArguments& arguments, const Config& config, const CheckpointFigures& figures) {
  Json out{{"format", "strake-bench-checkpoint-1"},  {"measured", utc_now()},
           {"command_line", arguments.command_line}, {"config", Json::parse(config_to_json(config))},
           {"config_hash", config_hash(config)},     {"launcher", RankEnvironment::detect().launcher_name()}};
  out.update(to_json(figures));
  out["build"] = build_json();
  out["hardware"] = hardware_json(read_gpus());
  out["libraries"] = libraries_json();
  return out;
}

std::string report_text(const BenchCheckpointArguments& arguments, const CheckpointFigures& figures) {
  const Build build = build_description();
  return fmt::format("bench checkpoint: {} on {} rank{}, {}\n{}\n  {:<15}{} {}, {} build", arguments.config_path,
                     figures.job.ranks, figures.job.ranks == 1 ? "" : "s", figures.job.device, table(figures), "strake",
                     build.version, build.commit, build.type);
}

int bench_checkpoint(const BenchCheckpointArguments& arguments, JobRank& job) {
  comm::Control& control = job.control;
  Config config;
  agree(control, [&] {
    require_free(arguments.overrides);
    for (const std::string& name : arguments.strategies) CheckpointBench::strategy_named(name);
    for (const std::string& folder : arguments.folders) {
      if (!PosixFiles().is_directory(folder))
        throw ConfigError(fmt::format("--folder {}: there is no such folder", folder));
    }
    config = load_bench_config(arguments.config_path, arguments.overrides, arguments.random_data);
  });
  require_same_on_all_ranks(control, program_facts("bench checkpoint"), kSameProgram);
  require_same_on_all_ranks(control, option_facts(arguments), kSameOptions);
  require_same_on_all_ranks(control, config_facts(config), kSameConfig);
  job.watch.set_limit(hang_limit(config));
  RankDevice device(config, control);
  const auto communicator = make_communicator(device.base(), control, std::move(job.host), config.comm);
  const RankWatch::Communication communication(job.watch, *communicator);
  CheckpointBench bench(arguments, config, device, *communicator, control, job.watch);
  const bool leads = control.rank() == 0;
  std::vector<CheckpointRun> runs =
      measure_all(arguments, varieties_of(arguments), bench, leads && ::isatty(STDERR_FILENO) != 0);
  if (!leads) return 0;
  std::vector<double> mtbf_s;
  for (const double hours : arguments.mtbf_hours) mtbf_s.push_back(hours * 3600);
  const CheckpointFigures figures = figures_of({.blocks = arguments.blocks,
                                                .repeats = arguments.repeats,
                                                .ranks = control.size(),
                                                .device = device.base().description(),
                                                .mtbf_s = std::move(mtbf_s),
                                                .restart_s = arguments.restart_s},
                                               std::move(runs));
  std::cout << (arguments.json
                    ? report_json(arguments, config, figures).dump(2, ' ', false, Json::error_handler_t::replace)
                    : report_text(arguments, figures))
            << '\n';
  return 0;
}

}  // namespace

int run_bench_checkpoint(const BenchCheckpointArguments& arguments) {
  return run_as_rank([&](JobRank& job) { return bench_checkpoint(arguments, job); });
}

}  // namespace strake::launch
