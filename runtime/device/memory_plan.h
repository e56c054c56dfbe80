// MemoryPlan: places tensors whose lives do not overlap on the same bytes.
//
// Two passes over the same code. Pass one hands out disjoint ranges of a planning arena while a step is
// recorded; the recording then says when each range is first and last touched. Pass two repeats the same
// reservations, in the same order, and gets offsets that share memory. The order checker proves the result on
// every test run, because an unsafe share is a hazard like any other.
//
// Only tensors used by a single stream may be planned (stream order is what separates lives).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/device/recording.h"

namespace strake {

// Where a model gets its activations from, in either pass.
class ActivationMemory {
 public:
  // Pass one: every tensor for itself, in `planning`.
  explicit ActivationMemory(Arena& planning) : arena_(&planning) {}
  // Pass two: `blocks` of pass one with offsets filled in by plan_memory.
  ActivationMemory(Arena& real, std::vector<struct MemoryBlock> planned);

  Tensor reserve(std::string name, DType dtype, std::initializer_list<std::int64_t> shape);

  const std::vector<MemoryBlock>& blocks() const { return blocks_; }

 private:
  Arena* arena_;
  bool planned_ = false;
  std::size_t next_ = 0;
  std::vector<MemoryBlock> blocks_;
};

struct MemoryBlock {
  std::string name;
  std::size_t size_bytes = 0;
  std::size_t planning_offset_bytes = 0;
  std::size_t offset_bytes = 0;  // in the real arena
  std::size_t first_entry = 0;   // of the recording
  std::size_t last_entry = 0;
  bool used = false;
};

// Sets lifetimes and offsets of `blocks`; returns the bytes the real arena needs. Greedy by size: each block
// takes the lowest offset where it meets no block that is alive with it.
std::size_t plan_memory(std::vector<MemoryBlock>& blocks, const Arena& planning, const Recording& recording);

}  // namespace strake
