#include "launch/verify/verify_overlap.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "comm/threads/threads_world.h"
#include "launch/job/agreement.h"
#include "launch/job/devices.h"
#include "launch/job/random_tokens.h"
#include "launch/job/rank_environment.h"
#include "launch/job/same_on_all_ranks.h"
#include "launch/job/world.h"
#include "launch/machine/machine.h"
#include "launch/machine/machine_report.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::steady_clock;

std::string full_name(const Cell& cell, const Variant& variant) {
  return fmt::format("{}: {}", cell.name(), variant.name);
}

// Are equal bits promised of two variants of a cell? More than two ranks are added by NCCL in an order that depends on
// how much it adds at once (comm/communicator.h); products that leave multiprocessors to gathers take other algorithms.
bool comparable(const Variant& a, const Variant& b, const comm::Communicator& communicator, const Config& config,
                const Device& device) {
  if (a.shard != b.shard && config.comm.spare_sms > 0 && device.kernel_state() != nullptr) return false;
  if (communicator.backend() != "nccl" || communicator.size() <= 2) return true;
  return a.bucket_mib == b.bucket_mib && a.shard == b.shard;
}

std::vector<RankRecord> records_of_all(comm::Control& control, const RankRecord& own) {
  std::vector<RankRecord> out;
  for (const std::string& text : control.all_gather(own.to_text())) out.push_back(RankRecord::from_text(text));
  return out;
}

void note_reports(VariantResult& result, const std::vector<RankRecord>& records) {
  for (std::size_t rank = 0; rank < records.size(); ++rank) {
    result.order_reports += records[rank].reports;
    for (const std::string& text : records[rank].first_reports) {
      if (result.first_reports.size() < RankRecord::kMostReports)
        result.first_reports.push_back({static_cast<int>(rank), text});
    }
  }
}

std::vector<RankRecord::Step> steps_of_all(const std::vector<RankRecord>& records) {
  std::vector<RankRecord::Step> out = records.front().steps;
  for (std::size_t rank = 1; rank < records.size(); ++rank) {
    for (std::size_t step = 0; step < out.size(); ++step) out[step].loss += records[rank].steps[step].loss;
  }
  return out;
}

// A cell's variants, one after the other, on this rank.
class CellOnRank {
 public:
  CellOnRank(const VerifyJob& job, const RankParts& parts, const Cell& cell) : job_(job), parts_(parts) {
    config_ = job.config;
    config_.train.micro_batch = cell.micro_batch;
    result_.cell = cell;
  }

  // `must`: its errors are thrown.
  const VariantResult& run(const Variant& variant, bool must) {
    VariantResult result{.variant = variant};
    const auto begin = steady_clock::now();
    const auto section = parts_.at(fmt::format("variant '{}'", full_name(result_.cell, variant)), Patience::kLong);
    try {
      std::vector<RankRecord> records = records_of_all(
          parts_.control, train_variant(config_, variant, job_.steps, parts_, job_.stop_requested, job_.hooks));
      if (const int signal = records.front().stop_signal; signal != 0) {
        throw AgreedError(ExitCode::kInterrupted, fmt::format("stopped by {} in variant '{}'", name_of_signal(signal),
                                                              full_name(result_.cell, variant)));
      }
      judge(result, std::move(records));
    } catch (const AgreedError& error) {
      if (must || error.exit_code() != ExitCode::kConfig) throw;
      result.problem = error.what();
    }
    result.seconds = std::chrono::duration<double>(steady_clock::now() - begin).count();
    result_.variants.push_back(std::move(result));
    return result_.variants.back();
  }

  CellResult result() && { return std::move(result_); }

 private:
  struct Reference {
    Variant variant;
    std::vector<RankRecord> records;
  };

  void judge(VariantResult& result, std::vector<RankRecord> records) {
    result.buckets = records.front().buckets;
    note_reports(result, records);
    const auto reference = std::find_if(references_.begin(), references_.end(), [&](const Reference& each) {
      return comparable(each.variant, result.variant, parts_.communicator, config_, parts_.device);
    });
    if (reference == references_.end()) {
      result.verdict = Verdict::kReference;
      if (references_.empty()) result_.steps = steps_of_all(records);
      references_.push_back({result.variant, std::move(records)});
    } else {
      result.verdict = Verdict::kPass;
      result.reference = reference->variant.name;
      result.difference = first_difference(records, reference->records);
    }
    if (result.difference.has_value() || result.order_reports > 0) result.verdict = Verdict::kFail;
  }

  const VerifyJob& job_;
  const RankParts& parts_;
  Config config_;
  CellResult result_;
  std::vector<Reference> references_;
};

Config load(const VerifyOverlapArguments& arguments) {
  Config config = load_config_with_tokens(arguments.config_path, arguments.overrides, arguments.random_data);
  config.data.val.clear();
  config.train.deterministic = true;
  return config;
}

// What is said while variants run: rows on standard output, and how long it will take.
class Talk {
 public:
  Talk(const VerifyOverlapArguments& arguments, const VerifyJob& job) : json_(arguments.json) {
    for (const CellOfVariants& cell : job.cells) left_ += cell.variants.size();
  }

  void cell(const Cell& cell) const {
    if (!json_) std::cout << heading(cell) << '\n' << std::flush;
  }
  void variant(const VariantResult& result) {
    if (!json_) std::cout << describe(result) << '\n' << std::flush;
    --left_;
    if (std::exchange(said_, true) || left_ == 0) return;
    constexpr double kWorthSaying = 10;
    const double all_s = result.seconds * static_cast<double>(left_);
    if (all_s >= kWorthSaying) {
      Logger().info("{} more variants will take about {:.0f} s, and what their delays add", left_, all_s);
    }
  }

 private:
  bool json_;
  bool said_ = false;
  std::size_t left_ = 0;
};

void print_json(const VerifyOverlapArguments& arguments, const VerifyJob& job, const VerifyReport& report,
                const std::string& launcher) {
  Json out{{"format", "strake-verify-overlap-1"},
           {"measured", utc_now()},
           {"command_line", arguments.command_line},
           {"launcher", launcher},
           {"config", Json::parse(config_to_json(job.config))},
           {"steps", job.steps}};
  out.update(to_json(report));
  out["build"] = build_json();
  out["hardware"] = hardware_json(read_gpus());
  out["libraries"] = libraries_json();
  std::cout << out.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

void require_passed(const VerifyReport& report) {
  if (report.passed()) return;
  const std::int64_t failed = report.count(Verdict::kFail);
  throw AgreedError(ExitCode::kFailure,
                    fmt::format("{} of the variants failed; the first: {}", failed, report.first_failure()));
}

VerifyJob job_of_arguments(const VerifyOverlapArguments& arguments, const Config& config, int ranks) {
  VerifyJob job;
  job.config = config;
  job.cells = variants_to_verify(config, ranks, arguments.only);
  job.steps = arguments.steps;
  return job;
}

void say_result(const VerifyOverlapArguments& arguments, const VerifyJob& job, const VerifyReport& report,
                const std::string& launcher) {
  if (arguments.json) {
    print_json(arguments, job, report, launcher);
  } else {
    std::cout << summary(report, job.steps) << "\n  on " << report.device
              << (report.backend.empty() ? "" : ", ranks connected by " + report.backend) << std::endl;
  }
}

Facts option_facts(const VerifyOverlapArguments& arguments) {
  return {{"--steps", fmt::format("{}", arguments.steps)},
          {"--variants", arguments.only.empty() ? "all" : fmt::format("{}", arguments.only)},
          {"--random-data", fmt::format("{}", arguments.random_data)}};
}

int verify_processes(const VerifyOverlapArguments& arguments, JobRank& rank, const VerifyHooks& hooks) {
  comm::Control& control = rank.control;
  VerifyJob job;
  agree(control, [&] {
    if (arguments.ranks != 0) throw ConfigError("--ranks: the ranks are those that were started; leave it out");
    job = job_of_arguments(arguments, load(arguments), control.size());
  });
  require_same_on_all_ranks(control, program_facts("verify-overlap"), kSameProgram);
  require_same_on_all_ranks(control, option_facts(arguments), kSameOptions);
  require_same_on_all_ranks(control, config_facts(job.config), kSameConfig);
  rank.watch.set_limit(hang_limit(job.config));
  RankDevice device(job.config, control);
  std::unique_ptr<comm::Communicator> communicator =
      make_communicator(device.base(), control, std::move(rank.host), job.config.comm);
  if (hooks.wrap_communicator) communicator = hooks.wrap_communicator(std::move(communicator));
  const RankWatch::Communication communication(rank.watch, *communicator);
  job.stop_requested = [&] { return rank.watch.asked_to_stop(); };
  Talk talk(arguments, job);
  job.on_cell = [&](const Cell& cell) { talk.cell(cell); };
  job.on_variant = [&](const VariantResult& result) { talk.variant(result); };
  job.hooks = hooks;
  PosixFiles files;
  const VerifyReport report = verify_variants(job, {.device = device.base(),
                                                    .communicator = *communicator,
                                                    .control = control,
                                                    .files = files,
                                                    .log = Logger(control.rank(), control.size(), LogLevel::kWarning),
                                                    .watch = &rank.watch});
  if (control.rank() == 0) say_result(arguments, job, report, RankEnvironment::detect().launcher_name());
  require_passed(report);
  return 0;
}

int verify_threads(const VerifyOverlapArguments& arguments, JobRank& process, const VerifyHooks& hooks) {
  const auto ranks = static_cast<int>(arguments.ranks == 0 ? VerifyOverlapArguments::kThreads : arguments.ranks);
  VerifyJob job;
  agree(process.control, [&] { job = job_of_arguments(arguments, load(arguments), ranks); });
  process.watch.set_limit(hang_limit(job.config));
  std::atomic<std::int64_t> asked{0};  // steps of any rank: progress, for the watch
  job.stop_requested = [&] {
    asked.fetch_add(1, std::memory_order_relaxed);
    return process.watch.asked_to_stop();
  };
  Talk talk(arguments, job);
  job.on_cell = [&](const Cell& cell) { talk.cell(cell); };
  job.on_variant = [&](const VariantResult& result) { talk.variant(result); };
  job.hooks = hooks;
  std::int64_t seen = -1;
  std::optional<RankWatch::Section> section;
  const VerifyReport report = as_agreed([&] {
    return verify_on_threads(job, ranks, [&] {
      if (std::exchange(seen, asked.load(std::memory_order_relaxed)) == asked.load(std::memory_order_relaxed)) return;
      section.reset();
      section.emplace(process.watch.enter("a step of ranks that are threads", Patience::kLong));
    });
  });
  say_result(arguments, job, report, "threads");
  require_passed(report);
  return 0;
}

}  // namespace

std::vector<CellOfVariants> variants_to_verify(const Config& config, int ranks, const std::vector<std::string>& only) {
  std::vector<CellOfVariants> out;
  std::vector<std::string> names;
  for (const Cell& cell : cells_of(config, ranks)) {
    CellOfVariants chosen{cell, {}};
    bool wanted = false;
    for (const Variant& variant : variants_of(config, ranks)) {
      const std::string name = full_name(cell, variant);
      names.push_back(name);
      const bool matches = only.empty() || std::any_of(only.begin(), only.end(), [&](const std::string& part) {
                             return name.find(part) != std::string::npos;
                           });
      wanted = wanted || matches;
      if (matches || chosen.variants.empty()) chosen.variants.push_back(variant);  // the plainest is compared with
    }
    if (wanted) out.push_back(std::move(chosen));
  }
  if (out.empty()) {
    throw ConfigError(
        fmt::format("--variants: no variant's name has {}; there are:\n{}", either(only), fmt::join(names, "\n")));
  }
  return out;
}

VerifyReport verify_variants(const VerifyJob& job, const RankParts& given) {
  RankParts parts = given;
  VerifyReport report{.cells = {}, .device = parts.device.description(), .backend = ""};
  if (parts.control.size() > 1) report.backend = parts.communicator.backend();
  const bool tells = parts.leads();
  bool first = true;
  for (const CellOfVariants& cell : job.cells) {
    if (tells && job.on_cell) job.on_cell(cell.cell);
    CellOnRank on_rank(job, parts, cell.cell);
    for (const Variant& variant : cell.variants) {
      const VariantResult& result = on_rank.run(variant, std::exchange(first, false));
      if (tells && job.on_variant) job.on_variant(result);
    }
    report.cells.push_back(std::move(on_rank).result());
  }
  return report;
}

VerifyReport verify_on_threads(const VerifyJob& job, int ranks, const std::function<void()>& while_they_run) {
  constexpr std::chrono::milliseconds kPause{20};
  comm::ThreadsWorld world(ranks);
  std::mutex mutex;  // of what follows
  std::exception_ptr first;
  bool of_a_peer = false;  // the first tells only that another rank has failed
  VerifyReport report;
  std::atomic<int> running{ranks};
  const auto rank_main = [&](int rank) {
    PosixFiles files;
    const auto control = world.make_control(rank);
    RankEnvironment environment = RankEnvironment::detect();
    environment.rank = environment.local_rank = rank;
    environment.ranks = environment.local_ranks = ranks;
    RankDevice device(job.config, *control, {}, environment);
    std::unique_ptr<comm::Communicator> communicator =
        make_communicator(device.base(), *control, world.make_communicator(rank), job.config.comm);
    if (job.hooks.wrap_communicator) communicator = job.hooks.wrap_communicator(std::move(communicator));
    VerifyReport own = verify_variants(job, {.device = device.base(),
                                             .communicator = *communicator,
                                             .control = *control,
                                             .files = files,
                                             .log = Logger(rank, ranks, LogLevel::kWarning)});
    const std::lock_guard lock(mutex);
    if (rank == 0) report = std::move(own);
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        rank_main(rank);
      } catch (const std::exception& error) {
        world.fail(rank, error.what());
        const bool blames_peer = dynamic_cast<const CommError*>(&error) != nullptr;
        const std::lock_guard lock(mutex);
        if (first == nullptr || (of_a_peer && !blames_peer)) {
          first = std::current_exception();
          of_a_peer = blames_peer;
        }
      }
      running.fetch_sub(1);
    });
  }
  while (running.load() > 0) {
    if (while_they_run) while_they_run();
    std::this_thread::sleep_for(kPause);
  }
  for (std::thread& thread : threads) thread.join();
  if (first != nullptr) std::rethrow_exception(first);
  return report;
}

int run_verify_overlap(const VerifyOverlapArguments& arguments, const VerifyHooks& hooks) {
  const bool threads = !RankEnvironment::detect().under_launcher();
  return run_as_rank([&](JobRank& rank) {
    return threads ? verify_threads(arguments, rank, hooks) : verify_processes(arguments, rank, hooks);
  });
}

}  // namespace strake::launch
