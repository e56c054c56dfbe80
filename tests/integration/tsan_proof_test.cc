// What the order checker says about the waits of a training run, said by ThreadSanitizer about the memory itself: a
// whole run is clean, and without any one of its waits there is a race.

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/integration/dropped_wait.h"
#include "tests/support/tsan_child.h"

namespace strake::test {
namespace {

constexpr std::string_view kDropArgument = "--drop=";

TsanChild child(const std::string& site) { return TsanChild(std::string(kDropArgument) + site); }

TEST(TrainingUnderTsan, IsClean) { child("").expect_clean(); }

class TrainingUnderTsanWithout : public testing::TestWithParam<const char*> {};

TEST_P(TrainingUnderTsanWithout, TheWaitHasARace) { child(GetParam()).expect_race(); }

INSTANTIATE_TEST_SUITE_P(Sites, TrainingUnderTsanWithout, testing::ValuesIn(kWaitSites),
                         [](const auto& site) { return std::to_string(site.index); });

}  // namespace
}  // namespace strake::test

int main(int argc, char** argv) {
  using strake::test::kDropArgument;
  if (argc == 2 && std::string_view(argv[1]).starts_with(kDropArgument)) {
    strake::test::SmallJob job;
    // A slot's first use has no hazard; two passes of every site are behind it.
    strake::test::run_with_dropped_wait(job, argv[1] + kDropArgument.size(), 2);
    return 0;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
