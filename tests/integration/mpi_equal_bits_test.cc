// The same cells with ranks under mpirun: equal bits whatever overlaps and whoever is late, and equal to ranks as
// threads. Each process also runs the whole job as threads of its own, for comparison.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>

#include "comm/mpi/mpi_world.h"
#include "tests/integration/small_job.h"
#include "tests/integration/variants.h"
#include "tests/support/watchdog.h"

namespace strake::test {
namespace {

constexpr std::int64_t kSteps = 6;
constexpr std::uint64_t kSeed = 43;

comm::MpiWorld* the_world = nullptr;

class MpiEqualBits : public testing::TestWithParam<int> {};

// `make_config`: in a run folder not used before.
void expect_equal_to_threads(const std::function<launch::Config()>& make_config, const std::vector<Variant>& all) {
  const int ranks = the_world->size();
  SCOPED_TRACE(testing::Message() << "rank " << the_world->rank() << ", seed of delays " << kSeed);
  const std::vector<RankOutcome> as_threads = run_threads(make_config(), ranks, [](int, const RunRank& run) {
    const auto device = make_cpu_device();
    run({.device = device.get()});
  });
  for (const Variant& variant : all) {
    SCOPED_TRACE(variant.name);
    const Watchdog watchdog("ranks under mpirun: " + variant.name);
    const auto cpu = make_cpu_device();
    VariantDevice devices(*cpu, variant, the_world->rank(), kSeed);
    const auto communicator = the_world->make_communicator();
    const auto control = the_world->make_control();
    launch::Config config = with(make_config(), variant);
    config.run.dir = control->broadcast(config.run.dir, 0);
    expect_equal_bits(run_rank(config, *communicator, *control, {.device = &devices.device()}), as_threads.front(),
                      kSteps);
    for (const OrderChecker::Report& report : devices.checker().reports()) ADD_FAILURE() << report.describe();
    control->barrier();  // the run folder is rank 0's
  }
}

TEST_P(MpiEqualBits, WithinACellAndToThreads) {
  SmallJob job;
  std::vector<Variant> all = variants();
  std::ranges::copy_if(sharded_variants(), std::back_inserter(all),
                       [](const Variant& variant) { return !variant.overlap || variant.late_stream == "all"; });
  expect_equal_to_threads([&] { return job.config(the_world->size(), GetParam(), 2, kSteps); }, all);
}

TEST_P(MpiEqualBits, OfASplitTable) {
  SmallJob job;
  std::vector<Variant> late;
  for (const auto& each : {variants(), sharded_variants()}) {
    std::ranges::copy_if(each, std::back_inserter(late),
                         [](const Variant& variant) { return !variant.overlap || variant.late_stream == "all"; });
  }
  const auto config = [&] {
    launch::Config made = job.config(the_world->size(), GetParam(), 2, kSteps);
    made.comm.split_embedding = launch::SplitTable::kAlways;
    return made;
  };
  expect_equal_to_threads(config, late);
}

INSTANTIATE_TEST_SUITE_P(Accumulation, MpiEqualBits, testing::Values(1, 2, 4), testing::PrintToStringParamName());

}  // namespace
}  // namespace strake::test

int main(int argc, char** argv) {
  strake::comm::MpiWorld world;
  strake::test::the_world = &world;
  testing::GTEST_FLAG(brief) = world.rank() != 0;  // failures only
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
