// MemoryPlan: places tensors on the same bytes where their lives are ordered (memory_lives.h).
//
// Two passes over the same code. Pass one hands out disjoint ranges of a planning arena while a step is recorded; the
// recording then says what each block of memory goes through. Pass two repeats the same reservations, in the same
// order, and gets offsets that share memory. What else runs on that memory between steps must be how a step begins: an
// evaluation is forward and loss.
//
// On every test run the order checker proves what is shared between streams: an unsafe share is a hazard like any
// other. What is shared within a stream is ordered anyhow; there the tests compare values.
// Threads: the training thread.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <vector>

#include "runtime/device/memory_lives.h"
#include "runtime/device/recording.h"

namespace strake {

struct MemoryPlan {
  std::vector<MemoryBlock> blocks;  // in the order of their reservation
  std::size_t size_bytes = 0;       // what the real arena needs
  // The fullest operation, and the bytes alive there: no placement needs less.
  std::size_t peak_entry = 0;  // of the recording
  std::size_t peak_bytes = 0;

  // What is alive at the fullest operation, largest first.
  std::vector<const MemoryBlock*> at_peak() const;
};

// Where a model gets its activations from, in either pass.
class ActivationMemory {
 public:
  // Pass one: every tensor for itself, in `planning`.
  explicit ActivationMemory(Arena& planning) : arena_(&planning) {}
  // Pass two: the blocks of pass one where plan_memory placed them.
  ActivationMemory(Arena& real, std::vector<MemoryBlock> planned);

  Tensor reserve(std::string name, DType dtype, std::initializer_list<std::int64_t> shape);

  const std::vector<MemoryBlock>& blocks() const { return blocks_; }

 private:
  Arena* arena_;
  bool planned_ = false;
  std::size_t next_ = 0;
  std::vector<MemoryBlock> blocks_;
};

// Finds the lives of `blocks`, reserved in `planning`, and places them. Greedy: in several orders each block takes the
// lowest offset where it shares with none that it must not; the order that needs least is taken.
MemoryPlan plan_memory(std::vector<MemoryBlock> blocks, const Arena& planning, const Recording& recording);

}  // namespace strake
