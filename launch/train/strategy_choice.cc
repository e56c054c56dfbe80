#include "launch/train/strategy_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "runtime/base/check.h"

namespace strake::launch {
namespace {

using checkpoint::StrategyKind;

// False until resuming, killed ranks and loads of checkpoints by the others have been shown on GPUs.
constexpr bool kShownOnGpus = false;

// Libraries and the driver take memory after a rank has taken its own.
constexpr std::size_t kSpareBytes = std::size_t{2} << 30;

// Past the page cache a disk is durable three times as soon (docs/benchmarks.md); of a small file the syncs are dearer.
constexpr std::size_t kLargeFileBytes = std::size_t{64} << 20;

// A core assembles, checksums and hands over some 2 GB/s: four feed what one host's disks take.
constexpr int kUsualWriters = 4;

// Of a rank's part of the state.
std::size_t shard_bytes(const TensorTable& table, int ranks) {
  std::size_t shared_bytes = 0, own_bytes = 0;
  for (const TensorTable::Entry& entry : table.entries) {
    (entry.replicated ? shared_bytes : own_bytes) += entry.view.extent_bytes();
  }
  return own_bytes + shared_bytes / static_cast<std::size_t>(ranks);
}

bool has_room(const RankParts& parts, const Trainer& trainer) {
  if (parts.communicator.backend() == "staged") return false;  // others may be on this GPU
  const auto free_bytes = parts.device.free_bytes();
  const std::size_t wanted_bytes =
      trainer.memory().size_bytes(MemoryKind::kDevice) + shard_bytes(trainer.state_table(), parts.control.size());
  return free_bytes.has_value() && wanted_bytes + kSpareBytes <= *free_bytes;
}

}  // namespace

StrategyKind planned_strategy(CheckpointStrategy wanted) {
  switch (wanted) {
    case CheckpointStrategy::kSync:
      return StrategyKind::kSync;
    case CheckpointStrategy::kPinned:
      return StrategyKind::kPinned;
    case CheckpointStrategy::kAuto:
    case CheckpointStrategy::kLazy:
      return StrategyKind::kLazy;
    case CheckpointStrategy::kDevice:
      return StrategyKind::kDevice;
  }
  STRAKE_CHECK(false, "no such strategy");
  return StrategyKind::kSync;
}

StrategyChoice choose_strategy(CheckpointStrategy wanted, const RankParts& parts, const Trainer& trainer) {
  if (wanted != CheckpointStrategy::kAuto) return {planned_strategy(wanted), ""};
  if (parts.device.target() != DeviceKind::kCuda) return {StrategyKind::kLazy, ""};
  if (!kShownOnGpus) return {StrategyKind::kSync, "checkpoint.strategy = device or lazy has to be asked for on GPUs"};
  const std::vector<std::string> told = parts.control.all_gather(has_room(parts, trainer) ? "room" : "none");
  const auto lacking = std::ranges::find(told, "none");
  if (lacking == told.end()) return {StrategyKind::kDevice, "every GPU has room for a snapshot of its rank's part"};
  return {StrategyKind::kLazy,
          fmt::format("the GPU of rank {} has no room for a snapshot of its part", lacking - told.begin())};
}

checkpoint::WriteOptions write_options(const Config& config, const RankParts& parts, const Trainer& trainer,
                                       int cores) {
  const int usual = parts.device.target() == DeviceKind::kCuda ? std::clamp(cores / 2, 1, kUsualWriters) : 1;
  const bool large = shard_bytes(trainer.state_table(), parts.control.size()) >= kLargeFileBytes;
  return {.writers = static_cast<int>(config.checkpoint.writers.value_or(usual)),
          .direct_io = config.checkpoint.direct_io.value_or(large)};
}

}  // namespace strake::launch
