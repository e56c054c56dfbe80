// `strake ckpt list`, `verify` and `prune`.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/directory.h"
#include "checkpoint/folder_lock.h"
#include "launch/commands/commands.h"
#include "launch/run/run_folder.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/io/files.h"

namespace strake::launch {
namespace {

// What people name: a checkpoint, the folder that holds checkpoints, or the run folder above it.
std::optional<std::int64_t> step_named(const std::filesystem::path& path) {
  // "runs/a/ckpt/step-00000005/" ends in an empty name.
  const std::filesystem::path name = path.has_filename() ? path.filename() : path.parent_path().filename();
  return checkpoint::step_of(name.string());
}

std::filesystem::path holder(Files& files, const std::filesystem::path& path) {
  if (step_named(path) && files.is_directory(path)) {
    const std::filesystem::path folder = (path.has_filename() ? path : path.parent_path()).parent_path();
    return folder.empty() ? "." : folder;
  }
  return files.is_directory(checkpoint_folder(path)) ? checkpoint_folder(path) : path;
}

std::vector<checkpoint::CheckpointSummary> found_in(Files& files, const std::filesystem::path& path) {
  auto found = checkpoint::list_checkpoints(files, holder(files, path));
  if (const auto step = step_named(path)) std::erase_if(found, [&](const auto& each) { return each.step != *step; });
  return found;
}

std::vector<checkpoint::SetAside> set_aside_in(Files& files, const std::filesystem::path& path) {
  if (step_named(path)) return {};
  return checkpoint::set_aside_steps(files, holder(files, path));
}

std::vector<checkpoint::CheckpointSummary> summaries(Files& files, const std::filesystem::path& path) {
  auto found = found_in(files, path);
  if (found.empty()) {
    if (const auto bad = set_aside_in(files, path); !bad.empty()) {
      throw NoCheckpointError(
          fmt::format("{}: no whole checkpoint is left: {} found damaged and set aside ({}); restore one from a copy",
                      path.string(), bad.size() == 1 ? "the one here was" : fmt::format("all {} were", bad.size()),
                      bad.back().name));
    }
    throw NoCheckpointError(fmt::format("{}: no checkpoint here; give a run folder or its ckpt folder", path.string()));
  }
  return found;
}

// When its manifest was written, by the file system; nullopt: not known.
std::optional<std::time_t> written_at(const std::filesystem::path& checkpoint) {
  std::error_code error;
  const auto time = std::filesystem::last_write_time(checkpoint / checkpoint::kManifestName, error);
  if (error) return std::nullopt;
  return std::chrono::system_clock::to_time_t(
      std::chrono::time_point_cast<std::chrono::system_clock::duration>(std::chrono::file_clock::to_sys(time)));
}

// Reading waits for the disk more than it computes, so that more threads than cores are of use.
int verifying_threads() { return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 4u, 8u)); }

// What verifying several checkpoints has found. All are judged before the first damage is reported: one bad checkpoint
// does not hide the state of the others.
class Findings {
 public:
  struct One {
    std::string problem;  // empty: it is whole
    std::uint64_t size_bytes = 0;
    std::chrono::duration<double> time{0};
  };

  // Reads every byte of one.
  One judge(Files& files, const std::filesystem::path& checkpoint) {
    One one;
    try {
      const auto began = std::chrono::steady_clock::now();
      one.size_bytes = checkpoint::verify_checkpoint(files, checkpoint, verifying_threads()).total_bytes();
      one.time = std::chrono::steady_clock::now() - began;
    } catch (const CorruptError& error) {
      damage_ += fmt::format("{}{}", damage_.empty() ? "" : "\n", error.what());
      one.problem = error.what();
    } catch (const Error& error) {  // it cannot be read, which is not damage
      if (!other_) other_ = std::current_exception();
      one.problem = error.what();
    }
    return one;
  }
  // Behind the list of all.
  void report(const std::filesystem::path& path) const {
    std::fflush(stdout);
    if (!damage_.empty()) throw CorruptError(damage_, path.string(), 0);
    if (other_) std::rethrow_exception(other_);
  }

 private:
  std::string damage_;
  std::exception_ptr other_;
};

double mebibytes(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// "14.83 GB in 2.10 s, 7062 MB/s"
std::string speed_text(std::uint64_t bytes, std::chrono::duration<double> time) {
  const double megabytes = static_cast<double>(bytes) / 1e6;
  return fmt::format("{} in {:.2f} s, {:.0f} MB/s",
                     megabytes < 1000 ? fmt::format("{:.1f} MB", megabytes) : fmt::format("{:.2f} GB", megabytes / 1e3),
                     time.count(), time.count() > 0 ? megabytes / time.count() : 0.0);
}

std::string listed_line(const checkpoint::CheckpointSummary& summary, const std::string& judgement) {
  std::string line = fmt::format("{}  step {}", summary.path.string(), summary.step);
  if (summary.world_size > 0) {  // its manifest could be read
    line += fmt::format("  {} tokens  {} rank{}  {:.1f} MiB", summary.tokens, summary.world_size,
                        summary.world_size > 1 ? "s" : "", mebibytes(summary.size_bytes));
  }
  if (summary.held_out_loss) line += fmt::format("  held-out loss {:.4f}", *summary.held_out_loss);
  if (const auto written = written_at(summary.path))
    line += fmt::format("  {:%Y-%m-%d %H:%M:%S}", fmt::localtime(*written));
  return line + "  " + judgement;
}

nlohmann::ordered_json listed_json(const checkpoint::CheckpointSummary& summary, std::string_view state,
                                   const std::string& problem) {
  nlohmann::ordered_json out{{"path", summary.path.string()}, {"step", summary.step}};
  const bool known = summary.world_size > 0;
  const auto if_known = [&](auto value) { return known ? nlohmann::ordered_json(value) : nlohmann::ordered_json(); };
  out["tokens"] = if_known(summary.tokens);
  out["ranks"] = if_known(summary.world_size);
  out["bytes"] = if_known(summary.size_bytes);
  out["held_out_loss"] = summary.held_out_loss ? nlohmann::ordered_json(*summary.held_out_loss) : nullptr;
  const auto written = written_at(summary.path);
  out["written"] =
      written ? nlohmann::ordered_json(fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(*written))) : nullptr;
  out["state"] = state;
  out["problem"] = problem.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(problem);
  return out;
}

std::uint64_t bytes_on_disk(Files& files, const std::filesystem::path& checkpoint) {
  std::uint64_t sum = 0;
  for (const std::string& name : files.list(checkpoint)) sum += files.file_size_bytes(checkpoint / name).value_or(0);
  return sum;
}

std::string_view why_it_stays(checkpoint::Fate fate) {
  switch (fate) {
    case checkpoint::Fate::kNewest:
      return "one of the newest";
    case checkpoint::Fate::kNotWhole:
      return "not whole, its run sets it aside";
    case checkpoint::Fate::kMultiple:
      return "of --keep-every";
    case checkpoint::Fate::kBest:
      return "of the best";
    case checkpoint::Fate::kSpared:
    case checkpoint::Fate::kGoes:
      break;
  }
  return "";
}

}  // namespace

int list_checkpoints(const ListArguments& arguments) {
  const std::filesystem::path& path = arguments.path;
  PosixFiles files;
  const auto set_aside = set_aside_in(files, path);
  Findings findings;
  nlohmann::ordered_json listed = nlohmann::ordered_json::array();
  for (const auto& summary : set_aside.empty() ? summaries(files, path) : found_in(files, path)) {
    std::string problem = summary.problem, judgement = "not verified (manifest and file sizes are right)";
    std::string_view state = summary.complete ? "complete" : "damaged";
    if (arguments.verify) {
      problem = findings.judge(files, summary.path).problem;
      judgement = "whole, every byte is as written";
      state = problem.empty() ? "whole" : "damaged";
    }
    if (arguments.json) {
      listed.push_back(listed_json(summary, state, problem));
    } else {
      fmt::print("{}\n", listed_line(summary, problem.empty() ? judgement : problem));
    }
  }
  nlohmann::ordered_json bad_ones = nlohmann::ordered_json::array();
  for (const checkpoint::SetAside& bad : set_aside) {
    const std::string place = (holder(files, path) / bad.name).string();
    if (arguments.json) {
      bad_ones.push_back({{"path", place}, {"step", bad.step}});
    } else {
      fmt::print("{}  step {}  was found damaged and set aside\n", place, bad.step);
    }
  }
  if (arguments.json) {
    const nlohmann::ordered_json out{{"checkpoints", listed}, {"set_aside", bad_ones}};
    fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  findings.report(path);
  return 0;
}

int verify_checkpoints(const std::filesystem::path& path) {
  PosixFiles files;
  std::vector<std::filesystem::path> paths;
  if (step_named(path)) {
    paths.push_back(path);
  } else {
    for (const auto& summary : summaries(files, path)) paths.push_back(summary.path);
  }
  Findings findings;
  for (const auto& each : paths) {
    const Findings::One found = findings.judge(files, each);
    fmt::print("{}\n", found.problem.empty() ? fmt::format("{}: every byte is as written; {}", each.string(),
                                                           speed_text(found.size_bytes, found.time))
                                             : found.problem);
  }
  findings.report(path);
  return 0;
}

int prune_checkpoints(const PruneArguments& arguments) {
  PosixFiles files;
  if (step_named(arguments.run)) {
    throw ConfigError(fmt::format("{}: is one checkpoint; name its run folder", arguments.run.string()));
  }
  const std::filesystem::path folder = holder(files, arguments.run);
  const auto listed = summaries(files, arguments.run);
  if (arguments.rule.keep_best > 0 &&
      std::ranges::none_of(listed, [](const auto& each) { return each.held_out_loss.has_value(); })) {
    throw ConfigError(
        fmt::format("--keep-best: no checkpoint in {} keeps its held-out loss, so that none can be the best; a run "
                    "keeps them where checkpoint.keep_best is set",
                    folder.string()));
  }
  std::optional<checkpoint::FolderLock> lock;
  if (!arguments.dry_run) {
    checkpoint::use_folder(folder.string(), [&] {
      lock.emplace(files, folder / checkpoint::kLockName,
                   [](std::string_view line) { Logger().write(LogLevel::kWarning, line); });
    });
  }
  constexpr std::int64_t kSpared = -1;  // nobody was loaded from any of them
  const auto judged = checkpoint::judge(files, folder, arguments.rule, kSpared);
  std::uint64_t freed_bytes = 0;
  std::size_t going = 0;
  for (const checkpoint::Judged& each : judged) {
    const std::filesystem::path path = folder / checkpoint::step_name(each.step);
    const std::uint64_t size_bytes = bytes_on_disk(files, path);
    const bool goes = each.fate == checkpoint::Fate::kGoes;
    if (goes) freed_bytes += size_bytes;
    if (goes) ++going;
    fmt::print("{}  {:.1f} MiB  {}\n", path.string(), mebibytes(size_bytes),
               goes ? "goes" : fmt::format("stays: {}", why_it_stays(each.fate)));
  }
  fmt::print("{} of {} {}, {:.1f} MiB\n", going, judged.size(), arguments.dry_run ? "would go" : "go",
             mebibytes(freed_bytes));
  std::fflush(stdout);  // what is done is said before it is done
  if (!arguments.dry_run) checkpoint::remove_retired(files, folder, judged, nullptr);
  return 0;
}

}  // namespace strake::launch
