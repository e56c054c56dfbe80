#include "runtime/device/memory_plan.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <utility>

#include "runtime/base/check.h"

namespace strake {
namespace {

std::size_t aligned(std::size_t size_bytes) {
  return (size_bytes + Arena::kAlignmentBytes - 1) / Arena::kAlignmentBytes * Arena::kAlignmentBytes;
}

// Blocks in `order`, each at the lowest offset that is free; returns where the last one ends.
std::size_t place(std::vector<MemoryBlock>& blocks, const MemoryLives& lives, const std::vector<std::size_t>& order) {
  struct Placed {
    std::size_t begin_bytes, end_bytes, block;
  };
  std::vector<Placed> placed;  // by offset
  std::size_t total_bytes = 0;
  for (const std::size_t index : order) {
    MemoryBlock& block = blocks[index];
    std::size_t offset_bytes = 0;
    if (!block.lives.empty()) {
      for (const Placed& other : placed) {
        if (lives.may_share(index, other.block)) continue;
        if (offset_bytes + block.size_bytes <= other.begin_bytes) break;
        offset_bytes = std::max(offset_bytes, other.end_bytes);
      }
      placed.insert(std::ranges::upper_bound(placed, offset_bytes, {}, &Placed::begin_bytes),
                    {offset_bytes, aligned(offset_bytes + block.size_bytes), index});
    }
    block.offset_bytes = offset_bytes;
    total_bytes = std::max(total_bytes, aligned(offset_bytes + block.size_bytes));
  }
  return total_bytes;
}

// Where the most bytes are alive.
void find_peak(MemoryPlan& plan, std::size_t entries) {
  std::vector<std::size_t> begin_bytes(entries + 1), end_bytes(entries + 1);
  for (const MemoryBlock& block : plan.blocks) {
    for (const MemoryLife& life : block.lives) {
      begin_bytes[life.first_entry] += aligned(block.size_bytes);
      end_bytes[life.last_entry] += aligned(block.size_bytes);
    }
  }
  std::size_t alive_bytes = 0;
  for (std::size_t entry = 0; entry < entries; ++entry) {
    alive_bytes += begin_bytes[entry];
    if (alive_bytes > plan.peak_bytes) {
      plan.peak_entry = entry;
      plan.peak_bytes = alive_bytes;
    }
    alive_bytes -= end_bytes[entry];
  }
}

}  // namespace

ActivationMemory::ActivationMemory(Arena& real, std::vector<MemoryBlock> planned)
    : arena_(&real), planned_(true), blocks_(std::move(planned)) {}

Tensor ActivationMemory::reserve(std::string name, DType dtype, std::initializer_list<std::int64_t> shape) {
  std::size_t wanted_bytes = size_bytes(dtype);
  for (const std::int64_t extent : shape) wanted_bytes *= static_cast<std::size_t>(extent);
  if (!planned_) {
    const std::size_t offset_bytes = arena_->reserve(wanted_bytes);
    blocks_.push_back({.name = std::move(name), .size_bytes = wanted_bytes, .planning_offset_bytes = offset_bytes});
    return Tensor(*arena_, offset_bytes, dtype, shape);
  }
  STRAKE_CHECK(next_ < blocks_.size() && blocks_[next_].name == name && blocks_[next_].size_bytes == wanted_bytes,
               "reservation '" + name + "' differs from the planning pass");
  return Tensor(*arena_, blocks_[next_++].offset_bytes, dtype, shape);
}

std::vector<const MemoryBlock*> MemoryPlan::at_peak() const {
  std::vector<const MemoryBlock*> alive;
  for (const MemoryBlock& block : blocks) {
    if (block.alive_at(peak_entry)) alive.push_back(&block);
  }
  std::ranges::stable_sort(alive, std::ranges::greater(), &MemoryBlock::size_bytes);
  return alive;
}

MemoryPlan plan_memory(std::vector<MemoryBlock> blocks, const Arena& planning, const Recording& recording) {
  MemoryPlan plan{.blocks = std::move(blocks)};
  const MemoryLives lives(plan.blocks, planning, recording);
  find_peak(plan, recording.entries.size());

  std::vector<std::size_t> alive_entries;  // by block
  for (const MemoryBlock& block : plan.blocks) {
    std::size_t entries = 0;
    for (const MemoryLife& life : block.lives) entries += life.last_entry - life.first_entry + 1;
    alive_entries.push_back(entries);
  }
  const auto size_of = [&](std::size_t block) { return plan.blocks[block].size_bytes; };
  const std::array<std::function<double(std::size_t)>, 3> weights{
      [&](std::size_t block) { return static_cast<double>(size_of(block)); },
      [&](std::size_t block) { return static_cast<double>(alive_entries[block]); },
      [&](std::size_t block) {
        return static_cast<double>(size_of(block)) * static_cast<double>(alive_entries[block]);
      }};
  for (const auto& weight : weights) {
    std::vector<std::size_t> order(plan.blocks.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, std::ranges::greater(), weight);
    std::vector<MemoryBlock> placed = plan.blocks;
    const std::size_t size_bytes = place(placed, lives, order);
    if (plan.size_bytes == 0 || size_bytes < plan.size_bytes) {
      plan.blocks = std::move(placed);
      plan.size_bytes = size_bytes;
    }
    if (plan.size_bytes <= plan.peak_bytes) break;
  }
  return plan;
}

}  // namespace strake
