#include "comm/communicator.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "comm/plan_communicator.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "tests/comm/expected_declarations.h"

namespace strake::comm {
namespace {

// A backend of a given size, of which no collective may be carried out.
class NeverCarriedOut final : public Communicator {
 public:
  NeverCarriedOut(int rank, int size, DeviceKind moves) : rank_(rank), size_(size), moves_(moves) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "never"; }
  std::unique_ptr<Communicator> split(int, int) override { return nullptr; }

 protected:
  bool moves_memory_of(DeviceKind kind) const override { return kind == moves_; }
  Body all_reduce_body(const std::string& name, const Tensor&) override { return asked_for(name); }
  Body reduce_scatter_body(const std::string& name, const Tensor&, const Tensor&) override { return asked_for(name); }
  Body all_gather_body(const std::string& name, const Tensor&, const Tensor&) override { return asked_for(name); }
  Body broadcast_body(const std::string& name, const Tensor&, int) override { return asked_for(name); }
  Body all_to_all_body(const std::string& name, const Tensor&, std::vector<std::int64_t>, const Tensor&,
                       std::vector<std::int64_t>) override {
    return asked_for(name);
  }
  Body barrier_body(const std::string& name) override { return asked_for(name); }

 private:
  Body asked_for(const std::string& name) {
    ADD_FAILURE() << "the backend was asked for '" << name << "'";
    return [](NativeStream) {};
  }

  const int rank_, size_;
  const DeviceKind moves_;
};

// Whatever carries the bytes, where it would run, and however many ranks take part.
TEST(Communicator, DeclaresWithoutItsBackend) {
  for (const DeviceKind moves : {DeviceKind::kCpu, DeviceKind::kCuda}) {
    for (const int size : {1, 2, 3, 8, 1000}) {
      for (const int rank : {0, size - 1}) {
        NeverCarriedOut communicator(rank, size, moves);
        expect_declarations(communicator);
      }
    }
  }
}

TEST(PlanCommunicator, DeclaresWhatEveryBackendDoes) {
  for (const int size : {1, 2, 5, 64}) {
    for (const int rank : {0, size - 1}) {
      PlanCommunicator communicator(rank, size);
      expect_declarations(communicator);
    }
  }
}

// On any device, and whatever memory the backend moves.
TEST(Communicator, AGroupOfOneNeedsNoBackend) {
  NeverCarriedOut communicator(0, 1, DeviceKind::kCuda);
  const auto device = make_cpu_device();
  const auto stream = device->make_stream("comm", StreamPriority::kHigh);
  Arena arena("data", MemoryKind::kDevice);
  const Tensor in = Tensor::reserve(arena, DType::kF32, {3});
  std::vector<Tensor> outs;
  for (int i = 0; i < 3; ++i) outs.push_back(Tensor::reserve(arena, DType::kF32, {3}));
  arena.allocate(*device);
  const std::vector<float> values{1, -2, 3};
  std::copy(values.begin(), values.end(), cpu::data<float>(in));
  const std::vector<std::int64_t> two{2};
  communicator.all_reduce(*stream, {"a"}, in);
  communicator.broadcast(*stream, {"b"}, in, 0);
  communicator.reduce_scatter(*stream, {"c"}, outs[0], in);
  communicator.all_gather(*stream, {"d"}, outs[1], in);
  communicator.all_to_all(*stream, {"e"}, outs[2], two, in, two);
  communicator.barrier(*stream, {"f"});
  stream->synchronize();
  const auto read = [](const Tensor& tensor) {
    return std::vector<float>(cpu::data<float>(tensor), cpu::data<float>(tensor) + 3);
  };
  EXPECT_EQ(read(in), values);
  EXPECT_EQ(read(outs[0]), values);
  EXPECT_EQ(read(outs[1]), values);
  EXPECT_EQ(read(outs[2]), (std::vector<float>{1, -2, 0}));
}

TEST(CommunicatorDeathTest, RefusesTheMemoryOfAnotherDevice) {
  NeverCarriedOut communicator(0, 2, DeviceKind::kCuda);
  const auto device = make_cpu_device();
  const auto stream = device->make_stream("comm", StreamPriority::kHigh);
  Arena arena("data", MemoryKind::kDevice);
  const Tensor data = Tensor::reserve(arena, DType::kF32, {3});
  arena.allocate(*device);
  EXPECT_DEATH(communicator.all_reduce(*stream, {"gradients"}, data),
               "'gradients': backend 'never' does not move the memory of CPU");
}

}  // namespace
}  // namespace strake::comm
