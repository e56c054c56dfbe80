// From the first step on a run takes nothing more from its device: no memory, no events, no streams.

#include <gtest/gtest.h>

#include <set>

#include "runtime/device/forwarding.h"
#include "tests/integration/small_job.h"

namespace strake::test {
namespace {

// CountingDevice: counts what it is asked to create.
class CountingDevice final : public ForwardingDevice {
 public:
  explicit CountingDevice(Device& inner) : ForwardingDevice(inner) {}

  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override {
    ++streams_;
    return ForwardingDevice::make_stream(name, priority);
  }
  Event make_event(std::string_view name) override {
    ++events_;
    return ForwardingDevice::make_event(name);
  }
  DeviceAddress allocate(std::string_view name, std::size_t size_bytes, MemoryKind kind) override {
    ++allocations_;
    return ForwardingDevice::allocate(name, size_bytes, kind);
  }

  struct Taken {
    int streams, events, allocations;
    std::size_t bytes;
    auto operator<=>(const Taken&) const = default;
  };
  Taken taken() const { return {streams_, events_, allocations_, allocated_bytes()}; }

 private:
  int streams_ = 0, events_ = 0, allocations_ = 0;
};

TEST(SteadyState, AStepTakesNothingFromTheDevice) {
  SmallJob job;
  launch::Config config = job.config(2, 2, 2, 8);
  config.comm.bucket_mib = 1e-6;
  config.checkpoint.every = 3;
  config.data.val = job.val_tokens().string();
  config.eval.every = 2;
  config.eval.batches = 4;
  run_threads(config, 2, [&](int, const RunRank& run) {
    const auto cpu = make_cpu_device();
    CountingDevice device(*cpu);
    std::set<CountingDevice::Taken> seen;
    RankSetup setup{.device = &device};
    setup.hooks.before_step = [&](std::int64_t) { seen.insert(device.taken()); };
    setup.hooks.on_report = [&](const launch::StepReport&) { seen.insert(device.taken()); };
    run(std::move(setup));
    ASSERT_EQ(seen.size(), 1u);
    EXPECT_EQ(seen.begin()->streams, 4);
    EXPECT_GT(seen.begin()->events, 0);
    EXPECT_GT(seen.begin()->bytes, 0u);
  });
}

}  // namespace
}  // namespace strake::test
