#include "checkpoint/directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "checkpoint/shard_file.h"
#include "checkpoint/verification.h"
#include "runtime/base/error.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStepPrefix = "step-";
constexpr std::string_view kTemporaryMark = ".tmp-";
constexpr std::string_view kBadPrefix = ".bad-";
constexpr std::string_view kTrashPrefix = ".trash-";

// "step-00001234.tmp-5", and not what a person named nearly so.
bool is_temporary(std::string_view name) {
  const std::size_t mark = name.find(kTemporaryMark);
  if (mark == name.npos || !step_of(name.substr(0, mark))) return false;
  const std::string_view attempt = name.substr(mark + kTemporaryMark.size());
  return !attempt.empty() && attempt.find_first_not_of("0123456789") == attempt.npos;
}

}  // namespace

std::string step_name(std::int64_t step) { return fmt::format("{}{:08d}", kStepPrefix, step); }

std::optional<std::int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kStepPrefix.size());
  std::int64_t step = -1;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (parsed.ec != std::errc() || step < 0 || step_name(step) != name) return std::nullopt;
  return step;
}

void use_folder(const std::string& name, const std::function<void()>& work) {
  try {
    work();
  } catch (const IoError& error) {
    if (!error.wrong_path()) throw;
    throw ConfigError(fmt::format("{} cannot be used: {}", name, error.what()));
  }
}

std::vector<std::int64_t> committed_steps(Files& files, const fs::path& directory) {
  std::vector<std::int64_t> steps;
  if (!files.exists(directory)) return steps;
  for (const std::string& name : files.list(directory)) {
    if (const auto step = step_of(name)) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

std::vector<SetAside> set_aside_steps(Files& files, const fs::path& directory) {
  std::vector<SetAside> found;
  if (!files.exists(directory)) return found;
  for (const std::string& name : files.list(directory)) {
    if (!name.starts_with(kBadPrefix)) continue;
    // ".bad-step-00001234", or with a number behind it.
    const std::string_view rest = std::string_view(name).substr(kBadPrefix.size());
    if (const auto step = step_of(rest.substr(0, rest.find('-', kStepPrefix.size())))) found.push_back({name, *step});
  }
  return found;
}

Manifest read_manifest(Files& files, const fs::path& checkpoint) {
  const fs::path path = checkpoint / kManifestName;
  std::string text;
  try {
    text = read_file(files, path, kMaxManifestBytes);
  } catch (const IoError& error) {
    if (error.error_number == EACCES || error.error_number == EMFILE || error.error_number == ENFILE) throw;
    throw CorruptError(error.what(), path.string(), 0);
  }
  Manifest manifest = parse_manifest(text, path.string());
  const fs::path folder = checkpoint.has_filename() ? checkpoint : checkpoint.parent_path();
  if (step_name(manifest.meta.step) != folder.filename().string()) {
    throw CorruptError(fmt::format("{}: is of step {}", path.string(), manifest.meta.step), path.string(), 0);
  }
  return manifest;
}

void remove_leftovers(Files& files, const fs::path& directory) {
  for (const std::string& name : files.list(directory)) {
    if (is_temporary(name) || name.starts_with(kTrashPrefix)) files.remove_all(directory / name);
  }
}

void require_writable(Files& files, const fs::path& directory) {
  const fs::path probe = directory / fmt::format("{}start", kTrashPrefix);
  files.make_directory(probe);
  files.remove(probe);
}

std::string set_aside(Files& files, const fs::path& directory, std::int64_t step) {
  const std::string base = fmt::format("{}{}", kBadPrefix, step_name(step));
  std::string name = base;
  for (int n = 2; files.exists(directory / name); ++n) name = fmt::format("{}-{}", base, n);
  files.rename(directory / step_name(step), directory / name);
  return name;
}

fs::path trash_path(const fs::path& directory, std::int64_t step) {
  return directory / fmt::format("{}{}", kTrashPrefix, step_name(step));
}

std::vector<CheckpointSummary> list_checkpoints(Files& files, const fs::path& directory) {
  std::vector<CheckpointSummary> summaries;
  for (const std::int64_t step : committed_steps(files, directory)) {
    CheckpointSummary summary;
    summary.path = directory / step_name(step);
    summary.step = step;
    try {
      const Manifest manifest = read_manifest(files, summary.path);
      summary.tokens = manifest.meta.tokens;
      summary.world_size = manifest.meta.world_size;
      summary.held_out_loss = manifest.meta.held_out_loss;
      summary.size_bytes = manifest.total_bytes();
      check_sizes(files, summary.path, manifest);
      summary.complete = true;
    } catch (const Error& error) {
      summary.problem = error.what();
    }
    summaries.push_back(std::move(summary));
  }
  return summaries;
}

Manifest verify_checkpoint(Files& files, const fs::path& checkpoint, int threads) {
  Manifest manifest = read_manifest(files, checkpoint);
  check_sizes(files, checkpoint, manifest);
  check_every_byte(files, checkpoint, manifest, threads);
  return manifest;
}

}  // namespace strake::checkpoint
