#include "launch/report/time_left.h"

#include <algorithm>
#include <cmath>

namespace strake::launch {
namespace {

// In steps after `step` up to `last`: every `every`-th, and the last one where `at_end`.
std::int64_t times(std::int64_t step, std::int64_t last, std::int64_t every, bool at_end) {
  if (step >= last) return 0;
  const std::int64_t regular = every > 0 ? last / every - step / every : 0;
  return regular + (at_end && (every == 0 || last % every != 0) ? 1 : 0);
}

}  // namespace

void RecentMean::add(double value) {
  static const double kFade = std::exp(-1 / kMemory);
  sum_ = sum_ * kFade + value;
  weight_ = weight_ * kFade + 1;
}

void TimeLeft::add_step(Seconds training) {
  if (steps_++ == 1) training_s_ = {};
  training_s_.add(training.count());
}

std::optional<Seconds> TimeLeft::after(std::int64_t step) const {
  if (steps_ == 0) return std::nullopt;
  const std::int64_t last = work_.last_step;
  Seconds left = Seconds(training_s_.value()) * static_cast<double>(std::max<std::int64_t>(last - step, 0));
  if (work_.evaluates) left += evaluations_.each() * static_cast<double>(times(step, last, work_.eval_every, true));
  auto saves = static_cast<double>(times(step, last, work_.checkpoint_every, work_.checkpoint_at_end));
  if (work_.checkpoint_interval.has_value()) saves += std::floor(left / *work_.checkpoint_interval);
  return left + checkpoints_.each() * saves;
}

}  // namespace strake::launch
