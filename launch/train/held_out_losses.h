// HeldOutLosses: the held-out loss of a run over all ranks: behind which steps it is due, and the best so far.
// Threads: the training thread. Errors: what Trainer::evaluate and Control throw.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "launch/config.h"
#include "launch/run/metrics.h"
#include "launch/train/train.h"

namespace strake::launch {

class HeldOutLosses {
 public:
  // `earlier`: on rank 0, of the attempts before.
  HeldOutLosses(const Config& config, comm::Control& control, Trainer& trainer, std::span<const EvalMetrics> earlier);

  // Behind `step` steps? `ends`: a run ends there that was not asked to stop.
  bool wanted(std::int64_t step, bool ends) const { return configured_ && (ends || due(step)); }
  bool due(std::int64_t step) const { return configured_ && every_ > 0 && step % every_ == 0; }
  // Did the attempt before end between the checkpoint of `step` and its held-out loss, which is left to this one?
  // Collective.
  bool lost(std::int64_t step) const;

  // Collective.
  HeldOut compute(std::int64_t step);

  // Of all attempts on rank 0, as far as compare_with_earlier() says; of this one elsewhere.
  const std::optional<HeldOut>& best() const { return best_; }
  // Attempts before have computed the same, up to where this one begins, behind `step` steps.
  void compare_with_earlier(std::int64_t step);

 private:
  void take_best(const HeldOut& held_out);

  bool configured_;
  std::int64_t every_;
  comm::Control& control_;
  Trainer& trainer_;
  std::span<const EvalMetrics> earlier_;
  std::optional<HeldOut> best_;
};

}  // namespace strake::launch
