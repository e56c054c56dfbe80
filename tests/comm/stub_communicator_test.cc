#include "comm/stub_communicator.h"

#include <gtest/gtest.h>

#include "comm/threads/threads_world.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/host_memory.h"
#include "tests/comm/expected_declarations.h"
#include "tests/support/rank_threads.h"

namespace strake::comm {
namespace {

constexpr int kRanks = 2;

TEST(StubCommunicator, DeclaresWhatIsThereWithoutIt) {
  ThreadsWorld world(kRanks);
  StubCommunicator communicator(world.make_communicator(1));
  communicator.stub(true);
  expect_declarations(communicator);
}

// No peer is there: what travelled would wait for it for ever.
TEST(StubCommunicator, EveryCollectiveEndsWithoutAPeerAndChangesNothing) {
  ThreadsWorld world(kRanks);
  StubCommunicator communicator(world.make_communicator(0));
  communicator.stub(true);
  const auto device = make_cpu_device();
  Arena arena("values", MemoryKind::kHost);
  const Tensor whole = Tensor::reserve(arena, DType::kF32, {4}), piece = Tensor::reserve(arena, DType::kF32, {2});
  arena.allocate(*device);
  const auto stream = device->make_stream("comm", StreamPriority::kHigh);
  for (const Tensor& tensor : {whole, piece}) {
    for (float& value : host_span<float>(tensor)) value = tensor.elems() == 4 ? 1 : 2;
  }
  const std::int64_t two[] = {1, 1};
  communicator.all_reduce(*stream, {"sum"}, whole);
  communicator.reduce_scatter(*stream, {"pieces"}, piece, whole);
  communicator.all_gather(*stream, {"whole"}, whole, piece);
  communicator.broadcast(*stream, {"broadcast"}, whole, 1);
  communicator.all_to_all(*stream, {"all to all"}, piece, two, whole, two);
  communicator.barrier(*stream, {"barrier"});
  stream->synchronize();
  for (const float value : host_span<float>(whole)) EXPECT_EQ(value, 1);
  for (const float value : host_span<float>(piece)) EXPECT_EQ(value, 2);
}

TEST(StubCommunicator, IsSwitchedBetweenCollectives) {
  ThreadsWorld world(kRanks);
  test::run_ranks(world, [&](int rank) {
    StubCommunicator communicator(world.make_communicator(rank));
    const auto device = make_cpu_device();
    Arena arena("values", MemoryKind::kHost);
    const Tensor data = Tensor::reserve(arena, DType::kF32, {8});
    arena.allocate(*device);
    const auto stream = device->make_stream("comm", StreamPriority::kHigh);
    for (float& value : host_span<float>(data)) value = 1;
    for (const bool stubbed : {false, true, true, false}) {
      communicator.stub(stubbed);
      communicator.all_reduce(*stream, {"sum"}, data);
    }
    stream->synchronize();
    for (const float value : host_span<float>(data)) EXPECT_EQ(value, 4);
  });
}

}  // namespace
}  // namespace strake::comm
