// `strake bench comm` sees what is wrong with a result: whichever collective, wherever in it, by however little.
#include "launch/bench/bench_comm.h"

#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "comm/forwarding_communicator.h"
#include "comm/threads/threads_world.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "tests/support/rank_threads.h"
#include "tests/support/watchdog.h"

namespace strake::launch {
namespace {

// Its results have one wrong element, the last.
class WrongCommunicator final : public comm::ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;

 protected:
  Body all_reduce_body(const std::string& name, const Tensor& data) override {
    return spoiled(ForwardingCommunicator::all_reduce_body(name, data), data);
  }
  Body reduce_scatter_body(const std::string& name, const Tensor& out, const Tensor& in) override {
    return spoiled(ForwardingCommunicator::reduce_scatter_body(name, out, in), out);
  }
  Body all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) override {
    return spoiled(ForwardingCommunicator::all_gather_body(name, out, in), out);
  }
  Body broadcast_body(const std::string& name, const Tensor& data, int root) override {
    return spoiled(ForwardingCommunicator::broadcast_body(name, data, root), data);
  }
  Body all_to_all_body(const std::string& name, const Tensor& out, std::vector<std::int64_t> recv_elems,
                       const Tensor& in, std::vector<std::int64_t> send_elems) override {
    return spoiled(ForwardingCommunicator::all_to_all_body(name, out, std::move(recv_elems), in, std::move(send_elems)),
                   out);
  }

 private:
  static Body spoiled(Body body, const Tensor& result) {
    return [body = std::move(body), result](NativeStream native) {
      body(native);
      cpu::data<float>(result)[result.elems() - 1] += 0.5f;
    };
  }
};

// Of three ranks, of which the last may have a wrong communicator.
std::vector<CommFigure> figures(bool wrong) {
  const test::Watchdog watchdog("collectives of a bench");
  BenchCommArguments arguments;
  arguments.least_bytes = 1000;
  arguments.most_bytes = 9'000'000;  // more than what is filled and compared at once
  arguments.factor = 9000;
  arguments.iterations = 2;
  arguments.warmup = 1;
  comm::ThreadsWorld world(3);
  std::vector<CommFigure> out;
  test::run_ranks(world, [&](int rank) {
    const auto device = make_cpu_device();
    const auto control = world.make_control(rank);
    std::unique_ptr<comm::Communicator> communicator = world.make_communicator(rank);
    if (wrong && rank == 2) communicator = std::make_unique<WrongCommunicator>(std::move(communicator));
    std::vector<CommFigure> mine = measure_collectives(arguments, *device, *communicator, *control);
    if (rank == 0) out = std::move(mine);
  });
  return out;
}

TEST(BenchComm, FindsOneWrongElement) {
  const std::vector<CommFigure> right = figures(false), wrong = figures(true);
  ASSERT_EQ(right.size(), 11u);  // two sizes of five, and a barrier
  ASSERT_EQ(wrong.size(), right.size());
  for (std::size_t i = 0; i < right.size(); ++i) {
    EXPECT_EQ(right[i].wrong_elems, 0) << name_of(right[i].collective);
    EXPECT_EQ(wrong[i].wrong_elems, wrong[i].collective == Collective::kBarrier ? 0 : 1)
        << name_of(wrong[i].collective);
  }
}

}  // namespace
}  // namespace strake::launch
