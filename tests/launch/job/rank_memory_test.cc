#include "launch/job/rank_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "launch/job/job_inputs.h"
#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"
#include "tests/integration/small_job.h"
#include "tests/support/faulty_device.h"

namespace strake::launch {
namespace {

// What two ranks say that take their memory where `available[rank]` bytes are; rank 1's device refuses the arena
// `refused`.
std::array<std::string, 2> take(std::array<std::uint64_t, 2> available, const std::string& refused = {}) {
  test::SmallJob job;
  const Config config = job.config(2, 1, 2, 1);
  std::array<std::string, 2> said;
  comm::ThreadsWorld world(2);
  test::run_ranks(world, [&](int rank) {
    const auto mine = static_cast<std::size_t>(rank);
    const JobInputs inputs = JobInputs::open(config, rank, 2);
    const auto communicator = world.make_communicator(rank);
    const auto control = world.make_control(rank);
    const auto cpu = make_cpu_device();
    test::FaultyDevice device(*cpu);
    if (rank == 1) device.faults().memory_to_refuse = refused;
    const StepPlan plan = Trainer::plan(inputs.job, *communicator, inputs.sources());
    Trainer trainer(inputs.job, device, *communicator, inputs.sources(), &plan);
    try {
      take_memory(*control, device, trainer, available[mine]);
      EXPECT_GT(device.allocated_bytes(), 0u);
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kConfig);
      said[mine] = error.what();
    }
  });
  return said;
}

constexpr std::uint64_t kPlenty = std::uint64_t{1} << 40;

TEST(RankMemory, IsTakenWhereThereIsEnough) {
  EXPECT_EQ(take({kPlenty, kPlenty}), (std::array<std::string, 2>{}));
  EXPECT_EQ(take({0, 0}), (std::array<std::string, 2>{})) << "not known: nothing is refused";
}

TEST(RankMemory, OfAllRanksOfAHostMustFit) {
  for (const auto& available : {std::array<std::uint64_t, 2>{1000, kPlenty}, {kPlenty, 1000}}) {
    const auto said = take(available);
    EXPECT_EQ(said[0], said[1]);
    for (const char* part : {"2 ranks on host", "together", "optimizer state", "activations", "train.micro_batch",
                             "train.sequence", "model.layers", "model.channels", "model.vocab"})
      EXPECT_NE(said[0].find(part), std::string::npos) << "no '" << part << "' in: " << said[0];
  }
}

TEST(RankMemory, WhatADeviceRefusesIsBadConfigurationToo) {
  const auto said = take({kPlenty, kPlenty}, "gradients");
  EXPECT_EQ(said[0], said[1]);
  for (const char* part : {"rank 1: out of memory", "no memory for 'gradients'", "optimizer state", "model.layers"})
    EXPECT_NE(said[0].find(part), std::string::npos) << "no '" << part << "' in: " << said[0];
}

TEST(RankMemory, ThisHostHasSome) {
  EXPECT_GT(available_host_bytes(), std::uint64_t{1} << 20);
  EXPECT_LT(available_host_bytes(), std::uint64_t{1} << 50);
}

}  // namespace
}  // namespace strake::launch
