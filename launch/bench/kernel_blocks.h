// KernelBlocks: which steps of `strake bench kernels` are measured, and in which every operation is timed.
//
//   warm-up | as they are | settling | timed | settling | as they are
//
// Steps with and without timing lie in one run, so clocks, temperature and power are those of training all along.
// The first steps behind a switch are not counted: marks are made then, and the host has to get ahead again.
// Threads: a value. Errors: none.
#pragma once

#include <cstdint>

namespace strake::launch {

struct KernelBlocks {
  enum class Part : std::uint8_t { kUncounted, kBefore, kTimed, kAfter };
  static constexpr std::int64_t kSettling = 2;

  std::int64_t warmup = 0, steps = 0;  // steps: of each block

  std::int64_t total() const { return after() + steps; }
  // Of step `step`, from 0.
  bool times_operations(std::int64_t step) const {
    return step >= before() + steps && step < after() - kSettling;  // settling too
  }
  Part part(std::int64_t step) const {
    const auto lies_in = [&](std::int64_t begin) { return step >= begin && step < begin + steps; };
    if (lies_in(before())) return Part::kBefore;
    if (lies_in(timed())) return Part::kTimed;
    if (lies_in(after())) return Part::kAfter;
    return Part::kUncounted;
  }

  // First steps of the blocks.
  std::int64_t before() const { return warmup; }
  std::int64_t timed() const { return before() + steps + kSettling; }
  std::int64_t after() const { return timed() + steps + kSettling; }
};

}  // namespace strake::launch
