// Where ranks live: what they tell each other of themselves, and the lines that people read.
#include "launch/job/rank_map.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/threads/threads_world.h"
#include "runtime/base/host_name.h"
#include "runtime/device/cpu/cpu_device.h"
#include "tests/support/rank_threads.h"

namespace strake::launch {
namespace {

RankDescription gpu(int rank, const std::string& host, const std::string& pci_bus_id,
                    const std::string& link = "NV18 through NVSwitch") {
  return {.rank = rank,
          .host = host,
          .device = "cuda:0 (H100)",
          .cores = 8,
          .gpu = "H100",
          .pci_bus_id = pci_bus_id,
          .link = link};
}
RankDescription cpu(int rank, const std::string& host, int cores) {
  return {.rank = rank, .host = host, .device = "CPU: a processor", .cores = cores};
}

TEST(RankMap, ALineForTheGpusOfAHost) {
  const std::vector ranks{gpu(0, "n1", "0000:04:00.0"), gpu(1, "n1", "0000:05:00.0"), gpu(2, "n10", "0000:04:00.0"),
                          gpu(3, "n10", "0000:05:00.0")};
  EXPECT_EQ(rank_map_text(ranks),
            "ranks 0, 1  n1   2 x H100, NV18 through NVSwitch, PCI 0000:04:00.0 0000:05:00.0\n"
            "ranks 2, 3  n10  2 x H100, NV18 through NVSwitch, PCI 0000:04:00.0 0000:05:00.0");
  EXPECT_EQ(hosts_of(ranks), 2);
}

// As `mpirun --map-by node` numbers them: PCI addresses stay in the order of the ranks.
TEST(RankMap, RanksOfAHostNeedNotBeNeighbours) {
  const std::vector ranks{gpu(0, "a", "01"), gpu(1, "b", "01"), gpu(2, "a", "02"), gpu(3, "b", "02"),
                          gpu(4, "a", "03"), gpu(5, "a", "04"), gpu(6, "a", "05")};
  EXPECT_EQ(rank_map_text(ranks),
            "ranks 0, 2, 4-6  a  5 x H100, NV18 through NVSwitch, PCI 01 02 03 04 05\n"
            "ranks 1, 3       b  2 x H100, NV18 through NVSwitch, PCI 01 02");
}

TEST(RankMap, SaysWhereAHostIsNotOfOneKind) {
  std::vector ranks{gpu(0, "a", "01", "NV4"), gpu(1, "a", "02", "PCIe, one NUMA node"), gpu(2, "a", "03", "")};
  ranks[2].gpu = "A100";
  EXPECT_EQ(rank_map_text(ranks),
            "ranks 0, 1  a  2 x H100, NV4 or PCIe, one NUMA node, PCI 01 02\n"
            "rank 2      a  A100, PCI 03");
  EXPECT_EQ(rank_map_text(std::vector{gpu(0, "a", "01", ""), gpu(1, "a", "01", "")}),
            "ranks 0, 1  a  H100, shared, PCI 01");
}

TEST(RankMap, OfCpusTellsTheCores) {
  EXPECT_EQ(rank_map_text(std::vector{cpu(0, "a", 1), cpu(1, "a", 1), cpu(2, "b", 8), cpu(3, "b", 4), cpu(4, "c", 2)}),
            "ranks 0, 1  a  CPU, 1 core each\n"
            "ranks 2, 3  b  CPU, 4 to 8 cores each\n"
            "rank 4      c  CPU, 2 cores");
}

TEST(RankMap, RanksDescribeThemselvesAsText) {
  RankDescription rank = gpu(3, "a \"host\"\xff", "0000:04:00.0");
  rank.pid = 1 << 20;
  const RankDescription come = rank_description(to_text(rank));
  EXPECT_EQ(come.rank, 3);
  EXPECT_TRUE(come.host.starts_with("a \"host\"")) << come.host;
  EXPECT_EQ(come.pid, 1 << 20);
  EXPECT_EQ(come.device, "cuda:0 (H100)");
  EXPECT_EQ(come.cores, 8);
  EXPECT_EQ(come.gpu, "H100");
  EXPECT_EQ(come.pci_bus_id, "0000:04:00.0");
  EXPECT_EQ(come.link, "NV18 through NVSwitch");
}

TEST(RankMap, IsTheSameOnAllRanks) {
  comm::ThreadsWorld world(3);
  std::vector<std::vector<RankDescription>> maps(3);
  test::run_ranks(world, [&](int rank) {
    const auto device = make_cpu_device();
    maps[static_cast<std::size_t>(rank)] = describe_ranks(*world.make_control(rank), *device);
  });
  for (const auto& map : maps) {
    ASSERT_EQ(map.size(), 3u);
    for (int rank = 0; rank < 3; ++rank) {
      const RankDescription& each = map[static_cast<std::size_t>(rank)];
      EXPECT_EQ(each.rank, rank);
      EXPECT_EQ(each.host, host_name());
      EXPECT_EQ(each.pid, getpid());
      EXPECT_GE(each.cores, 1);
      EXPECT_EQ(each.gpu, "");
      EXPECT_EQ(each.link, "");
    }
    EXPECT_EQ(hosts_of(map), 1);
  }
}

}  // namespace
}  // namespace strake::launch
