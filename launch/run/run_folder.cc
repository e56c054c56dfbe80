#include "launch/run/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "checkpoint/directory.h"
#include "launch/run/manifest.h"
#include "launch/run/metrics.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/telemetry/step_record.h"

namespace strake::launch {
namespace {

constexpr std::string_view kLockName = "run.lock";

std::uint64_t new_run() {
  std::random_device entropy;
  return (static_cast<std::uint64_t>(entropy()) << 32) | entropy();
}

}  // namespace

RunFolder RunFolder::start(Files& files, const std::filesystem::path& path, Resume resume, checkpoint::Log log) {
  if (!log) log = [](std::string_view line) { Logger().write(LogLevel::kWarning, line); };
  const std::string what = fmt::format("run.dir: {}", path.string());
  checkpoint::use_folder(what, [&] {
    if (files.exists(path) && !files.is_directory(path)) throw ConfigError(what + " is a file; name a folder");
  });
  const bool has_checkpoints =
      files.is_directory(checkpoint_folder(path)) && !files.list(checkpoint_folder(path)).empty();
  const bool has_run = has_checkpoints || files.exists(path / "manifest.json") || files.exists(metrics_path(path));
  if (resume == Resume::kMust && !has_run) {
    throw NoCheckpointError(fmt::format(
        "run.dir: {} holds no run, but checkpoint.resume = true; correct run.dir, or set checkpoint.resume = auto",
        path.string()));
  }
  if (resume == Resume::kNever && files.exists(path)) {
    const std::vector<std::string> names = files.list(path);
    if (std::any_of(names.begin(), names.end(), [](const std::string& name) { return name != kLockName; })) {
      throw ConfigError(fmt::format(
          "run.dir: {} is not empty, and checkpoint.resume = false; name a new folder, or set checkpoint.resume = auto",
          path.string()));
    }
  }

  RunFolder folder;
  folder.path_ = path;
  checkpoint::use_folder(what, [&] {
    files.make_directories(path);
    folder.lock_ = std::make_unique<checkpoint::FolderLock>(files, path / kLockName, std::move(log));
  });

  EarlierAttempt earlier = read_earlier_attempt(files, path);
  if (files.exists(metrics_path(path))) {
    // An attempt that lost its manifest still counts.
    Metrics metrics = read_metrics(files, metrics_path(path));
    earlier.attempt = std::max(earlier.attempt, metrics.highest_attempt);
    folder.evaluations_ = std::move(metrics.evals);
    for (const StepMetrics& step : metrics.steps) folder.attempts_.emplace_back(step.step, step.attempt);
  }
  if (has_run) earlier.attempt = std::max<std::int64_t>(earlier.attempt, 1);
  folder.attempt_ = earlier.attempt + 1;
  folder.run_ = earlier.run != 0 ? earlier.run : new_run();
  return folder;
}

std::int64_t RunFolder::attempt_of(std::int64_t step) const {
  const auto found = std::ranges::lower_bound(attempts_, step, {}, [](const auto& line) { return line.first; });
  return found != attempts_.end() && found->first == step ? found->second : 0;
}

std::filesystem::path metrics_path(const std::filesystem::path& run_folder) { return run_folder / "metrics.jsonl"; }

std::filesystem::path step_record_path(const std::filesystem::path& run_folder, int rank) {
  return run_folder / step_record_file_name(rank);
}

std::filesystem::path checkpoint_folder(const std::filesystem::path& run_folder) { return run_folder / "ckpt"; }

std::filesystem::path checkpoint_from_gpus(Files& files, const std::filesystem::path& run_folder) {
  const std::filesystem::path folder = checkpoint_folder(run_folder);
  bool exists = false;
  checkpoint::use_folder(fmt::format("run.dir: {}", run_folder.string()), [&] { exists = files.is_directory(folder); });
  if (!exists) return {};
  const auto found = checkpoint::find_newest(files, folder);
  if (!found.has_value()) return {};
  const auto choices = nlohmann::json::parse(found->manifest.meta.choices, nullptr, false);
  if (!choices.is_object()) return {};  // imported weights
  // Older checkpoints do not name the device, but only GPUs have kernels to choose from.
  const bool gpus = choices.contains("device") ? choices["device"] == "cuda" : choices.contains("kernels");
  return gpus ? found->path : std::filesystem::path();
}

}  // namespace strake::launch
