// Ranks compare what they were given.
#include "launch/job/same_on_all_ranks.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "comm/threads/threads_world.h"
#include "launch/job/agreement.h"
#include "tests/support/rank_threads.h"

namespace strake::launch {
namespace {

// What each rank is told; "": nothing, they go on.
std::vector<std::string> compare(const std::vector<Facts>& facts) {
  std::vector<std::string> told(facts.size());
  comm::ThreadsWorld world(static_cast<int>(facts.size()));
  test::run_ranks(world, [&](int rank) {
    const auto control = world.make_control(rank);
    try {
      require_same_on_all_ranks(*control, facts[static_cast<std::size_t>(rank)], "make them alike");
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kConfig);
      told[static_cast<std::size_t>(rank)] = error.what();
    }
  });
  return told;
}

TEST(SameOnAllRanks, EqualFactsPass) {
  const Facts facts{{"a", "1"}, {"b", "\xff not UTF-8"}};
  EXPECT_EQ(compare({facts, facts, facts}), std::vector<std::string>(3));
  EXPECT_EQ(compare({facts}), std::vector<std::string>(1));
}

TEST(SameOnAllRanks, EveryDifferenceIsOneLineOnEveryRank) {
  const std::vector<std::string> told = compare({{{"a", "1"}, {"b", "x"}, {"same", "0"}},
                                                 {{"a", "2"}, {"b", "x"}, {"same", "0"}},
                                                 {{"a", "1"}, {"b", "y"}, {"same", "0"}}});
  const std::string expected =
      "a: the ranks differ: rank 0, 2 has 1, rank 1 has 2; make them alike\n"
      "b: the ranks differ: rank 0, 1 has x, rank 2 has y; make them alike";
  EXPECT_EQ(told, (std::vector<std::string>{expected, expected, expected}));
}

TEST(SameOnAllRanks, WhatOneRankDoesNotHave) {
  const std::vector<std::string> told = compare({{{"data.val", "9 tokens"}}, {}});
  EXPECT_EQ(told[0], "data.val: the ranks differ: rank 0 has 9 tokens, rank 1 has (nothing); make them alike");
  EXPECT_EQ(told[1], told[0]);
}

TEST(SameOnAllRanks, AProgramIsItsCommandAndItsBuild) {
  const Facts facts = program_facts("train");
  ASSERT_EQ(facts.size(), 2u);
  EXPECT_EQ(facts[0], Facts::value_type("command", "train"));
  EXPECT_EQ(facts[1].first, "build");
  EXPECT_GE(facts[1].second.size(), 10u);
}

TEST(SameOnAllRanks, AConfigIsAllItsKeys) {
  Config config;
  const Facts facts = config_facts(config);
  EXPECT_EQ(facts.size(), config_keys().size());
  config.checkpoint.keep = 5;
  const Facts other = config_facts(config);
  std::size_t differ = 0;
  for (std::size_t i = 0; i < facts.size(); ++i) differ += facts[i] != other[i];
  EXPECT_EQ(differ, 1u);
}

}  // namespace
}  // namespace strake::launch
