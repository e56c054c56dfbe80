#include "launch/train/checkpoint_policy.h"

namespace strake::launch {

CheckpointPolicy::CheckpointPolicy(const Config& config, std::optional<std::int64_t> newest, Clock::time_point now)
    : rules_(config.checkpoint),
      last_step_(last_step(config)),
      stops_early_(config.train.stop_at == last_step_),
      newest_(newest),
      last_save_(now) {}

bool CheckpointPolicy::wanted(std::int64_t step, bool stopping) const {
  if (stopping || (step == last_step_ && (rules_.at_end || stops_early_))) return true;
  return rules_.every.has_value() ? *rules_.every > 0 && step % *rules_.every == 0 : all_know_;
}

bool CheckpointPolicy::due(Clock::time_point now) const {
  const std::optional<Seconds> time = interval();
  return time.has_value() && !all_know_ && now - last_save_ >= *time;
}

void CheckpointPolicy::begun(Clock::time_point now) {
  last_save_ = now;
  all_know_ = false;
}

NextCheckpoint CheckpointPolicy::next(std::int64_t step, Clock::time_point now) const {
  NextCheckpoint next;
  if (step >= last_step_) return next;
  if (const std::int64_t every = rules_.every.value_or(0); every > 0) {
    next.step = (step / every + 1) * every;
    if (*next.step > last_step_) next.step = rules_.at_end ? std::optional(last_step_) : std::nullopt;
  }
  if (const auto time = interval()) next.in = *time - (now - last_save_);
  return next;
}

std::optional<Seconds> CheckpointPolicy::interval() const {
  if (rules_.every.has_value()) return std::nullopt;
  return Seconds(60 * rules_.every_minutes);
}

}  // namespace strake::launch
