// Fitting: which settings of a run fit into so much memory, found by planning with each.
// Threads: one. Errors: ConfigError naming the least that a run can take, where nothing fits.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "launch/plan/planner.h"
#include "models/recompute.h"

namespace strake::launch {

// The largest value from 1 to `most` that needs at most `limit_bytes`; 0: none does. `needed_bytes` grows with the
// value, nearly in proportion: then it is asked about four times, of which `second` is one. nullopt: that value is not
// possible.
std::int64_t largest_that_fits(std::int64_t most, std::uint64_t limit_bytes,
                               const std::function<std::optional<std::uint64_t>(std::int64_t)>& needed_bytes,
                               std::int64_t second = 2);

// A run with that train.recompute.
struct PolicyFit {
  models::Recompute policy;
  std::size_t needed_bytes = 0;  // with everything else as it is
  double more_flops = 0;         // as a part of the step's
  // train.micro_batch. Unset: no limit is known; 0: not even one sequence fits.
  std::optional<std::int64_t> largest_micro_batch;             // with as many micro-batches a step
  std::optional<std::int64_t> largest_micro_batch_of_a_batch;  // that divides train.global_batch
};

// For every policy, where `plan` is planner.plan(config). `limit_bytes` 0: not known.
std::vector<PolicyFit> fit_policies(Planner& planner, const Config& config, const RankPlan& plan,
                                    std::uint64_t limit_bytes);

// Throws what to change where not even the smallest of `fits` does.
void require_a_fit(Planner& planner, const Config& config, const std::vector<PolicyFit>& fits, int ranks,
                   std::uint64_t limit_bytes);

}  // namespace strake::launch
