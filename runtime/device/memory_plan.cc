#include "runtime/device/memory_plan.h"

#include <algorithm>
#include <numeric>

#include "runtime/base/check.h"

namespace strake {
namespace {

std::size_t aligned(std::size_t size_bytes) {
  return (size_bytes + Arena::kAlignmentBytes - 1) / Arena::kAlignmentBytes * Arena::kAlignmentBytes;
}

bool alive_together(const MemoryBlock& a, const MemoryBlock& b) {
  return a.first_entry <= b.last_entry && b.first_entry <= a.last_entry;
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

std::size_t plan_memory(std::vector<MemoryBlock>& blocks, const Arena& planning, const Recording& recording) {
  // Blocks were reserved in ascending planning offsets, so the one that holds a byte is found by bisection.
  for (std::size_t entry = 0; entry < recording.entries.size(); ++entry) {
    const auto touch = [&](const RecordedAccess& access) {
      if (access.arena != &planning || access.begin_bytes == access.end_bytes) return;
      auto after = std::upper_bound(
          blocks.begin(), blocks.end(), access.begin_bytes,
          [](std::size_t offset, const MemoryBlock& block) { return offset < block.planning_offset_bytes; });
      STRAKE_CHECK(after != blocks.begin(), "an access of the planning arena lies in no block");
      MemoryBlock& block = *std::prev(after);
      STRAKE_CHECK(access.end_bytes <= block.planning_offset_bytes + block.size_bytes,
                   "an access reaches past '" + block.name + "'");
      if (!block.used) block.first_entry = entry;
      block.last_entry = entry;
      block.used = true;
    };
    for (const RecordedAccess& access : recording.entries[entry].reads) touch(access);
    for (const RecordedAccess& access : recording.entries[entry].writes) touch(access);
  }

  std::vector<std::size_t> by_size(blocks.size());
  std::iota(by_size.begin(), by_size.end(), std::size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](std::size_t a, std::size_t b) { return blocks[a].size_bytes > blocks[b].size_bytes; });
  std::vector<const MemoryBlock*> placed;  // by offset
  std::size_t total_bytes = 0;
  for (const std::size_t index : by_size) {
    MemoryBlock& block = blocks[index];
    if (!block.used) {
      block.offset_bytes = 0;  // no operation touches it
      total_bytes = std::max(total_bytes, aligned(block.size_bytes));
      continue;
    }
    std::size_t offset_bytes = 0;
    for (const MemoryBlock* other : placed) {
      if (!alive_together(block, *other)) continue;
      if (offset_bytes + block.size_bytes <= other->offset_bytes) break;
      offset_bytes = std::max(offset_bytes, aligned(other->offset_bytes + other->size_bytes));
    }
    block.offset_bytes = offset_bytes;
    total_bytes = std::max(total_bytes, aligned(offset_bytes + block.size_bytes));
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), &block,
                         [](const MemoryBlock* a, const MemoryBlock* b) { return a->offset_bytes < b->offset_bytes; }),
        &block);
  }
  return total_bytes;
}

}  // namespace strake
