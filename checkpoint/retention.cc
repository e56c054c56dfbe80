#include "checkpoint/retention.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "checkpoint/directory.h"
#include "checkpoint/manifest.h"
#include "checkpoint/shard_file.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;

// Of one that is whole.
std::optional<Manifest> whole_manifest(Files& files, const fs::path& checkpoint) {
  try {
    Manifest manifest = read_manifest(files, checkpoint);
    check_sizes(files, checkpoint, manifest);
    return manifest;
  } catch (const CorruptError&) {
    return std::nullopt;
  } catch (const IncompatibleCheckpointError&) {
    return std::nullopt;
  }
}

std::set<std::int64_t> best_steps(Files& files, const fs::path& directory, const std::vector<std::int64_t>& steps,
                                  int count) {
  std::vector<std::pair<double, std::int64_t>> losses;  // loss, minus the step: the best first
  for (const std::int64_t step : steps) {
    const auto manifest = whole_manifest(files, directory / step_name(step));
    if (manifest && manifest->meta.held_out_loss) losses.emplace_back(*manifest->meta.held_out_loss, -step);
  }
  std::sort(losses.begin(), losses.end());
  losses.resize(std::min(losses.size(), static_cast<std::size_t>(count)));
  std::set<std::int64_t> best;
  for (const auto& [loss, minus_step] : losses) best.insert(-minus_step);
  return best;
}

}  // namespace

std::vector<Judged> judge(Files& files, const fs::path& directory, const Retention& rule, std::int64_t spared_step) {
  STRAKE_CHECK(rule.keep >= 1 && rule.keep_every >= 0 && rule.keep_best >= 0, "at least one checkpoint is kept");
  const std::vector<std::int64_t> steps = committed_steps(files, directory);
  std::set<std::int64_t> best;
  if (rule.keep_best > 0) best = best_steps(files, directory, steps, rule.keep_best);
  std::vector<Judged> judged;
  int newest = 0;
  for (const std::int64_t step : steps) {
    Fate fate = Fate::kGoes;
    if (newest < rule.keep) {
      const bool whole = whole_manifest(files, directory / step_name(step)).has_value();
      fate = whole ? Fate::kNewest : Fate::kNotWhole;
      newest += whole ? 1 : 0;
    } else if (step == spared_step) {
      fate = Fate::kSpared;
    } else if (rule.keep_every > 0 && step % rule.keep_every == 0) {
      fate = Fate::kMultiple;
    } else if (best.contains(step)) {
      fate = Fate::kBest;
    }
    judged.push_back({step, fate});
  }
  return judged;
}

void remove_retired(Files& files, const fs::path& directory, const std::vector<Judged>& judged,
                    Failpoints* failpoints) {
  for (const auto& [step, fate] : judged) {
    if (fate != Fate::kGoes) continue;
    hit(failpoints, "ckpt.prune.before");
    const fs::path trash = trash_path(directory, step);
    files.remove_all(trash);
    files.rename(directory / step_name(step), trash);
    files.sync_directory(directory);  // before its files go: a committed name never stands for a part
    hit(failpoints, "ckpt.prune.mid");
    files.remove_all(trash);
  }
}

}  // namespace strake::checkpoint
