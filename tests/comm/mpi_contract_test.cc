// The contract suite for MPI, with as many ranks as mpirun has started, and for staged collectives on top of it.
#include "comm/mpi/mpi_world.h"
#include "comm/staged/staged_communicator.h"
#include "tests/comm/communicator_contract.h"

namespace strake::comm {
namespace {

MpiWorld* the_world = nullptr;  // of this process, set by main before any test runs

using MakeCommunicator = std::function<std::unique_ptr<Communicator>(Device&)>;

Backend backend(std::string name, MakeCommunicator make) {
  return {.name = std::move(name), .run = [make](const std::function<void(RankWorld&)>& rank_main) {
            RankWorld rank_world{
                .rank = the_world->rank(), .size = the_world->size(), .make_communicator = make, .make_control = [] {
                  return the_world->make_control();
                }};
            rank_main(rank_world);
          }};
}

INSTANTIATE_TEST_SUITE_P(Mpi, CommunicatorContract,
                         testing::Values(backend("MpiWorld", [](Device&) { return the_world->make_communicator(); }),
                                         backend("Staged",
                                                 [](Device& device) {
                                                   return std::make_unique<StagedCommunicator>(
                                                       the_world->make_communicator(), device, 65536);
                                                 })),
                         name_of_backend);

TEST(MpiWorld, NamesTheLibraryItRunsWith) { EXPECT_NE(MpiWorld::library().find('.'), std::string::npos); }

TEST(MpiWorld, HasAsManyRanksAsAskedFor) {
  const char* expected = std::getenv("STRAKE_TEST_RANKS");
  ASSERT_NE(expected, nullptr);
  EXPECT_EQ(std::to_string(the_world->size()), expected);
}

}  // namespace
}  // namespace strake::comm

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  strake::comm::MpiWorld world;
  strake::comm::the_world = &world;
  if (world.rank() != 0) testing::GTEST_FLAG(brief) = true;  // failures only
  return RUN_ALL_TESTS();
}
