#include "launch/plan/fitting.h"

#include <gtest/gtest.h>

#include <random>

#include "runtime/base/error.h"
#include "tests/support/thrown_by.h"

namespace strake::launch {
namespace {

using test::thrown_by;
using Bytes = std::optional<std::uint64_t>;

TEST(LargestThatFits, IsExactWhateverTheGrowth) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 3000; ++i) {
    // Ascending, in steps of any size.
    std::vector<std::uint64_t> needed{random() % 100};
    const bool even = i % 3 == 0;
    while (needed.size() < 1 + random() % 300) needed.push_back(needed.back() + (even ? 10 : random() % 40));
    const auto most = static_cast<std::int64_t>(needed.size());
    const std::uint64_t limit = random() % (needed.back() + 30);
    const auto possible = static_cast<std::int64_t>(i % 5 == 0 ? random() % needed.size() : needed.size());
    const std::int64_t expected =
        std::min<std::int64_t>(possible, std::ranges::upper_bound(needed, limit) - needed.begin());
    EXPECT_EQ(largest_that_fits(most, limit,
                                [&](std::int64_t value) -> Bytes {
                                  EXPECT_TRUE(value >= 1 && value <= most);
                                  if (value > possible) return std::nullopt;
                                  return needed[static_cast<std::size_t>(value - 1)];
                                }),
              expected);
  }
}

TEST(LargestThatFits, AsksLittle) {
  int asked = 0;
  EXPECT_EQ(largest_that_fits(1 << 20, 48'000'000,
                              [&](std::int64_t value) -> Bytes {
                                ++asked;
                                return 5'000'000 + 1000 * static_cast<std::uint64_t>(value) +
                                       static_cast<std::uint64_t>(value % 7);
                              }),
            42999);
  EXPECT_LE(asked, 6);
  asked = 0;
  EXPECT_EQ(largest_that_fits(1 << 20, 10, [&](std::int64_t) -> Bytes { return ++asked, 11; }), 0);
  EXPECT_EQ(asked, 1);
}

Config small_config() {
  Config config;
  config.model.layers = 4;
  config.model.channels = 256;
  config.model.heads = 4;
  config.model.vocab = 1000;
  config.data.train = {"nowhere"};
  config.train.sequence = 128;
  config.train.micro_batch = 4;
  config.train.global_batch = 24;
  return config;
}

std::uint64_t needed(Planner& planner, Config config, std::int64_t micro_batch, std::int64_t accumulation, int ranks) {
  config.train.micro_batch = micro_batch;
  config.train.global_batch = micro_batch * accumulation * ranks;
  return planner.plan(config).needed_bytes();
}

TEST(FitPolicies, LargestMicroBatchesAreThose) {
  for (const DeviceKind kind : {DeviceKind::kCpu, DeviceKind::kCuda}) {
    constexpr int kRanks = 2;
    Planner planner({.kind = kind, .ranks = kRanks}, 1000);
    Config config = small_config();
    const std::uint64_t limit = needed(planner, config, 9, 3, kRanks) + 1000;
    const auto fits = fit_policies(planner, config, planner.plan(config), limit);
    ASSERT_EQ(fits.size(), 3u);
    EXPECT_EQ(fits[0].largest_micro_batch, 9);
    EXPECT_EQ(fits[0].more_flops, 0);
    for (const PolicyFit& fit : fits) {
      config.train.recompute = fit.policy;
      const std::int64_t largest = *fit.largest_micro_batch, of_batch = *fit.largest_micro_batch_of_a_batch;
      EXPECT_LE(needed(planner, config, largest, 3, kRanks), limit) << name_of(fit.policy);
      EXPECT_GT(needed(planner, config, largest + 1, 3, kRanks), limit) << name_of(fit.policy);
      EXPECT_EQ(fit.needed_bytes, needed(planner, config, 4, 3, kRanks)) << name_of(fit.policy);
      EXPECT_EQ(12 % of_batch, 0) << "12 sequences are a rank's share";
      for (const std::int64_t divisor : {1, 2, 3, 4, 6, 12}) {
        EXPECT_EQ(needed(planner, config, divisor, 12 / divisor, kRanks) <= limit, divisor <= of_batch)
            << name_of(fit.policy) << ", " << divisor;
      }
    }
    EXPECT_GT(*fits[1].largest_micro_batch, 9);
    EXPECT_GT(*fits[2].largest_micro_batch, *fits[1].largest_micro_batch);
    EXPECT_GT(fits[2].more_flops, fits[1].more_flops);
    EXPECT_GT(fits[2].more_flops, 0.1);
    EXPECT_LT(fits[2].more_flops, 0.34) << "forward again, without the head";
  }
}

TEST(FitPolicies, WithoutALimitNothingIsSearched) {
  Planner planner({}, 1000);
  const Config config = small_config();
  for (const PolicyFit& fit : fit_policies(planner, config, planner.plan(config), 0)) {
    EXPECT_FALSE(fit.largest_micro_batch.has_value());
    EXPECT_FALSE(fit.largest_micro_batch_of_a_batch.has_value());
    EXPECT_GT(fit.needed_bytes, 0u);
  }
}

TEST(RequireAFit, SaysTheLeastAndWhatWouldFit) {
  Planner planner({}, 1000);
  Config config = small_config();
  const auto said = [&](std::uint64_t limit) {
    const auto fits = fit_policies(planner, config, planner.plan(config), limit);
    return thrown_by<ConfigError>([&] { require_a_fit(planner, config, fits, 1, limit); });
  };
  config.train.recompute = models::Recompute::kBlock;
  const std::uint64_t least = needed(planner, config, 1, 6, 1);
  EXPECT_EQ(said(least), "nothing") << "is thrown";
  const std::string of_layers = said(least - 1);
  EXPECT_NE(of_layers.find("train.micro_batch = 1 and train.recompute = block"), std::string::npos) << of_layers;
  EXPECT_NE(of_layers.find("; lower model.layers (3 would fit), model.channels, model.mlp_channels, model.vocab or "
                           "train.sequence"),
            std::string::npos)
      << of_layers;
  const std::string of_none = said(1000);
  EXPECT_NE(of_none.find("nothing fits into 0.00 MiB: the least is"), std::string::npos) << of_none;
  EXPECT_NE(of_none.find("; lower model.channels, model.mlp_channels,"), std::string::npos)
      << "fewer layers would not do: " << of_none;
}

}  // namespace
}  // namespace strake::launch
