#include "launch/train/held_out_losses.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace strake::launch {

HeldOutLosses::HeldOutLosses(const Config& config, comm::Control& control, Trainer& trainer,
                             std::span<const EvalMetrics> earlier)
    : configured_(!config.data.val.empty()),
      every_(config.eval.every),
      control_(control),
      trainer_(trainer),
      earlier_(earlier) {}

bool HeldOutLosses::lost(std::int64_t step) const {
  if (step == 0 || !due(step)) return false;
  const bool there = std::ranges::any_of(earlier_, [&](const EvalMetrics& eval) { return eval.step == step; });
  return control_.broadcast(there ? "there" : "lost", 0) == "lost";
}

HeldOut HeldOutLosses::compute(std::int64_t step) {
  const double share = trainer_.evaluate();
  HeldOut held_out{step, 0};
  for (const std::string& text : control_.all_gather(fmt::format("{:.17g}", share))) held_out.loss += std::stod(text);
  take_best(held_out);
  return held_out;
}

void HeldOutLosses::compare_with_earlier(std::int64_t step) {
  for (const EvalMetrics& eval : earlier_) {
    if (eval.step <= step && std::isfinite(eval.val_loss)) take_best({eval.step, eval.val_loss});
  }
}

void HeldOutLosses::take_best(const HeldOut& held_out) {
  if (!best_.has_value() || held_out.loss < best_->loss) best_ = held_out;
}

}  // namespace strake::launch
