#include "launch/plan/fitting.h"

#include <fmt/format.h>

#include <algorithm>

#include "launch/plan/memory_size.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

constexpr std::int64_t kMostMicroBatch = 1 << 20;  // that train.micro_batch accepts

// The same number of micro-batches of another size.
Config with_micro_batch(Config config, std::int64_t micro_batch, int ranks) {
  const std::int64_t accumulation = derive(config, ranks).accumulation;
  config.train.micro_batch = micro_batch;
  config.train.global_batch = micro_batch * ranks * accumulation;
  return config;
}

std::optional<std::uint64_t> needed_bytes(Planner& planner, const Config& config) {
  if (!planner.possible(config)) return std::nullopt;
  return planner.plan(config, kMicroBatchesOfMemory).needed_bytes();
}

// Of train.global_batch as it is: a rank's share of it is a whole number of micro-batches. `largest` fits with as many
// micro-batches as `config` has.
std::int64_t largest_of_the_batch(Planner& planner, Config config, int ranks, std::int64_t largest,
                                  std::uint64_t limit_bytes) {
  const std::int64_t share = config.train.global_batch / ranks;
  const bool adds_up = derive(config, ranks).accumulation > 1;
  for (std::int64_t micro_batch = share; micro_batch >= 1; --micro_batch) {
    if (share % micro_batch != 0) continue;
    // All at once adds nothing up, which takes less: more may fit than `largest` says.
    const bool at_once = micro_batch == share;
    if (micro_batch > largest && !at_once) continue;
    if (micro_batch <= largest && (adds_up || at_once)) return micro_batch;
    config.train.micro_batch = micro_batch;
    const auto bytes = needed_bytes(planner, config);
    if (bytes.has_value() && *bytes <= limit_bytes) return micro_batch;
  }
  return 0;
}

}  // namespace

std::int64_t largest_that_fits(std::int64_t most, std::uint64_t limit_bytes,
                               const std::function<std::optional<std::uint64_t>(std::int64_t)>& needed_bytes,
                               std::int64_t second) {
  const auto first = needed_bytes(1);
  if (!first.has_value() || *first > limit_bytes) return 0;
  std::int64_t low = 1, high = most + 1;  // low fits, high does not
  double low_bytes = static_cast<double>(*first), bytes_each = 0;
  for (int asked = 1; high - low > 1; ++asked) {
    constexpr int kOftenEnough = 8;  // then it is not in proportion: halves end for sure
    std::int64_t guess = asked == 1 ? second : low + (high - low) / 2;
    if (asked <= kOftenEnough && bytes_each > 0) {
      const double more = (static_cast<double>(limit_bytes) - low_bytes) / bytes_each;
      guess = more < static_cast<double>(high - low) ? low + static_cast<std::int64_t>(more) : high - 1;
    }
    guess = std::clamp(guess, low + 1, high - 1);
    const auto bytes = needed_bytes(guess);
    if (bytes.has_value()) {
      bytes_each = (static_cast<double>(*bytes) - low_bytes) / static_cast<double>(guess - low);
    }
    if (bytes.has_value() && *bytes <= limit_bytes) {
      low = guess;
      low_bytes = static_cast<double>(*bytes);
    } else {
      high = guess;
    }
  }
  return low;
}

std::vector<PolicyFit> fit_policies(Planner& planner, const Config& config, const RankPlan& plan,
                                    std::uint64_t limit_bytes) {
  const int ranks = plan.target.ranks;
  std::vector<PolicyFit> fits;
  for (const auto policy : {models::Recompute::kNone, models::Recompute::kNormActivation, models::Recompute::kBlock}) {
    Config variant = config;
    variant.train.recompute = policy;
    const bool as_it_is = policy == config.train.recompute;
    const RankPlan other = as_it_is ? RankPlan() : planner.plan(variant, kMicroBatchesOfMemory);
    const RankPlan& of_policy = as_it_is ? plan : other;
    PolicyFit fit{.policy = policy,
                  .needed_bytes = of_policy.needed_bytes(),
                  .more_flops = of_policy.flops > 0 ? of_policy.recomputed_flops / of_policy.flops : 0,
                  .largest_micro_batch = {},
                  .largest_micro_batch_of_a_batch = {}};
    if (limit_bytes > 0) {
      const auto needed = [&](std::int64_t micro_batch) -> std::optional<std::uint64_t> {
        if (micro_batch == config.train.micro_batch) return fit.needed_bytes;
        return needed_bytes(planner, with_micro_batch(variant, micro_batch, ranks));
      };
      fit.largest_micro_batch = largest_that_fits(kMostMicroBatch, limit_bytes, needed, config.train.micro_batch);
      fit.largest_micro_batch_of_a_batch =
          largest_of_the_batch(planner, variant, ranks, *fit.largest_micro_batch, limit_bytes);
    }
    fits.push_back(fit);
  }
  return fits;
}

void require_a_fit(Planner& planner, const Config& config, const std::vector<PolicyFit>& fits, int ranks,
                   std::uint64_t limit_bytes) {
  const bool any = std::ranges::any_of(fits, [](const PolicyFit& fit) {
    return fit.largest_micro_batch.value_or(1) > 0 || fit.largest_micro_batch_of_a_batch.value_or(1) > 0;
  });
  if (any) return;
  Config least = with_micro_batch(config, 1, ranks);
  least.train.recompute = models::Recompute::kBlock;
  const std::uint64_t least_bytes = needed_bytes(planner, least).value_or(0);
  const std::int64_t layers =
      largest_that_fits(config.model.layers, limit_bytes, [&](std::int64_t wanted) -> std::optional<std::uint64_t> {
        Config smaller = least;
        smaller.model.layers = wanted;
        return needed_bytes(planner, smaller);
      });
  throw ConfigError(fmt::format(
      "nothing fits into {}: the least is {}, with train.micro_batch = 1 and train.recompute = block; lower {}"
      "model.channels, model.mlp_channels, model.vocab or train.sequence",
      memory_size_text(limit_bytes), memory_size_text(least_bytes),
      layers > 0 ? fmt::format("model.layers ({} would fit), ", layers) : ""));
}

}  // namespace strake::launch
