// What the order checker says about the waits of a training run, said by ThreadSanitizer about the memory itself: a
// whole run is clean, and without any one of its waits there is a race.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/integration/dropped_wait.h"
#include "tests/support/tsan_child.h"

namespace strake::test {
namespace {

// --drop=optimizer:compute waits for gathered weights
constexpr std::string_view kDropArgument = "--drop=";

using Site = std::pair<WaitingRun, std::string>;

TsanChild child(const Site& site) {
  return TsanChild(fmt::format("{}{}:{}", kDropArgument, site.first.name(), site.second));
}

TEST(TrainingUnderTsan, IsClean) {
  for (const WaitingRun& run : kWaitingRuns) child({run, ""}).expect_clean();
}

class TrainingUnderTsanWithout : public testing::TestWithParam<Site> {};

TEST_P(TrainingUnderTsanWithout, TheWaitHasARace) { child(GetParam()).expect_race(); }

std::vector<Site> sites() {
  std::vector<Site> sites;
  for (const WaitingRun& run : kWaitingRuns) {
    for (const std::string& site : wait_sites(run)) sites.emplace_back(run, site);
  }
  return sites;
}

INSTANTIATE_TEST_SUITE_P(Sites, TrainingUnderTsanWithout, testing::ValuesIn(sites()),
                         [](const auto& site) { return std::to_string(site.index); });

}  // namespace
}  // namespace strake::test

int main(int argc, char** argv) {
  using strake::test::kDropArgument;
  if (argc == 2 && std::string_view(argv[1]).starts_with(kDropArgument)) {
    strake::test::SmallJob job;
    // A slot's first use has no hazard; two passes of every site are behind it.
    const std::string_view site = std::string_view(argv[1]).substr(kDropArgument.size());
    const std::size_t colon = site.find(':');
    for (const strake::test::WaitingRun& run : strake::test::kWaitingRuns) {
      if (run.name() != site.substr(0, colon)) continue;
      strake::test::run_with_dropped_wait(job, run, std::string(site.substr(colon + 1)), 2);
    }
    return 0;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
