// StepBlocks: which steps of a bench are measured, and of which nothing travels between ranks.
//
//   measured      warm-up | steps | steps | ...                              a repeat each
//   calibrated    warm-up | real | stubbed || stubbed | real || real | ...   a repeat each; || between them
//
// Of two that are compared neither is always the first: what drifts, drifts for both. Behind a switch the first steps
// are not counted: a step reads weights that were gathered in the one before.
// Threads: a value. Errors: none.
#pragma once

#include <cstdint>

namespace strake::launch {

enum class Communication : std::uint8_t {
  kReal,
  kStubbed,     // nothing travels
  kCalibrated,  // both, in turn
};

struct StepBlocks {
  std::int64_t warmup = 0, steps = 0, repeats = 0;  // steps: of each block
  Communication communication = Communication::kReal;

  static constexpr std::int64_t kSettling = 2;

  std::int64_t total() const;
  // Of step `step`, from 0.
  bool stubbed(std::int64_t step) const;
  bool counted(std::int64_t step) const;

 private:
  bool calibrated() const { return communication == Communication::kCalibrated; }
};

}  // namespace strake::launch
