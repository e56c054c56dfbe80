#include "launch/bench/step_blocks.h"

namespace strake::launch {

std::int64_t StepBlocks::total() const { return warmup + repeats * (calibrated() ? 2 * (kSettling + steps) : steps); }

bool StepBlocks::stubbed(std::int64_t step) const {
  if (!calibrated()) return communication == Communication::kStubbed;
  if (step < warmup) return false;
  const std::int64_t block = (step - warmup) / (kSettling + steps);
  const std::int64_t repeat = block / 2;
  return (block % 2 == 1) != (repeat % 2 == 1);
}

bool StepBlocks::counted(std::int64_t step) const {
  if (step < warmup) return false;
  return !calibrated() || (step - warmup) % (kSettling + steps) >= kSettling;
}

}  // namespace strake::launch
