// Run under ThreadSanitizer too: the host fills slots while the stream's worker copies others.
#include "runtime/device/scalar_ring.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <vector>

#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/host_memory.h"
#include "runtime/device/order_checker.h"
#include "runtime/device/recording.h"
#include "tests/support/gate.h"

namespace strake::test {
namespace {

constexpr std::size_t kSlots = 4;

class ScalarRingTest : public testing::Test {
 protected:
  ScalarRingTest() {
    host_.allocate(device_);
    memory_.allocate(device_);
  }
  // An operation that notes the scalars as it finds them.
  void use(Stream& stream, std::vector<double>& seen) {
    stream.launch({.label = {"use"}, .kind = "use", .reads = {&scalars_, 1}, .writes = {}},
                  [this, &seen](NativeStream) {
                    seen.insert(seen.end(), cpu::data<double>(scalars_), cpu::data<double>(scalars_) + 3);
                  });
  }

  std::unique_ptr<Device> cpu_ = make_cpu_device();
  CheckedDevice device_{*cpu_, CheckedDevice::Policy::kCollect};
  Arena host_{"host", MemoryKind::kHost}, memory_{"scalars", MemoryKind::kDevice};
  ScalarRing ring_{host_, 3, kSlots};
  Tensor scalars_ = Tensor::reserve(memory_, DType::kF64, {3});
  std::unique_ptr<Stream> compute_ = device_.make_stream("compute", StreamPriority::kNormal);
};

// As a training run does it: step k has been seen done before step k + 2 is enqueued.
TEST_F(ScalarRingTest, EveryStepReadsItsOwn) {
  constexpr int kSteps = 200;
  std::vector<double> seen, expected;
  std::vector<Event> ended;
  for (std::size_t i = 0; i < kSlots; ++i) ended.push_back(device_.make_event("step ended"));
  for (int step = 0; step < kSteps; ++step) {
    const auto slot = static_cast<std::size_t>(step) % kSlots;
    if (step >= 2) {
      ASSERT_TRUE(wait_until([&] { return device_.complete(ended[static_cast<std::size_t>(step - 2) % kSlots]); }));
    }
    ring_.put(slot, std::array<double, 3>{1.0 + step, 1.0 / (1 + step), -1.0 * step});
    ring_.fetch(*compute_, {"scalars", Phase::kOptimizer}, slot, scalars_);
    use(*compute_, seen);
    compute_->record(ended[slot]);
    expected.insert(expected.end(), {1.0 + step, 1.0 / (1 + step), -1.0 * step});
  }
  compute_->synchronize();
  EXPECT_EQ(seen, expected);
  EXPECT_TRUE(device_.checker().reports().empty());
}

// Gate: the stream is held before its first fetch. The host fills every slot meanwhile, and each fetch takes its own.
TEST_F(ScalarRingTest, TheHostRunsAheadByAllSlots) {
  std::vector<double> seen, expected;
  Gate gate;
  compute_->launch({.label = {"hold"}, .kind = "gate", .reads = {}, .writes = {}}, gate.body());
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    const auto value = static_cast<double>(slot);
    ring_.put(slot, std::array<double, 3>{value, value + 0.5, -value});
    ring_.fetch(*compute_, {"scalars"}, slot, scalars_);
    use(*compute_, seen);
    expected.insert(expected.end(), {value, value + 0.5, -value});
  }
  gate.open();
  compute_->synchronize();
  EXPECT_EQ(seen, expected);
}

// The fetch happens where it is enqueued, not where the values are put: this is what lets a step be captured once.
TEST_F(ScalarRingTest, AFetchTakesWhatTheSlotHoldsWhenItRuns) {
  std::vector<double> seen;
  Gate gate;
  ring_.put(0, std::array<double, 3>{1, 2, 3});
  compute_->launch({.label = {"hold"}, .kind = "gate", .reads = {}, .writes = {}}, gate.body());
  ring_.fetch(*compute_, {"scalars"}, 0, scalars_);
  use(*compute_, seen);
  ring_.put(0, std::array<double, 3>{4, 5, 6});
  gate.open();
  compute_->synchronize();
  EXPECT_EQ(seen, (std::vector<double>{4, 5, 6}));
}

TEST_F(ScalarRingTest, AReaderOnAnotherStreamNeedsAWait) {
  const auto other = device_.make_stream("other", StreamPriority::kNormal);
  Event fetched = device_.make_event("fetched");
  ring_.put(1, std::array<double, 3>{1, 2, 3});
  ring_.fetch(*compute_, {"scalars"}, 1, scalars_);
  compute_->record(fetched);
  other->wait(fetched, {"other waits for the scalars", Hazard::kReadAfterWrite});
  std::vector<double> seen;
  use(*other, seen);
  other->synchronize();
  EXPECT_EQ(seen, (std::vector<double>{1, 2, 3}));
  EXPECT_TRUE(device_.checker().reports().empty());

  // Declared on a device that runs nothing, so that ThreadSanitizer has no true race to report.
  PlanDevice plan;
  CheckedDevice checked(plan, CheckedDevice::Policy::kCollect);
  const auto writer = checked.make_stream("writer", StreamPriority::kNormal);
  const auto reader = checked.make_stream("reader", StreamPriority::kNormal);
  ring_.fetch(*writer, {"scalars"}, 1, scalars_);
  reader->launch({.label = {"use"}, .kind = "use", .reads = {&scalars_, 1}, .writes = {}}, {});
  ASSERT_EQ(checked.checker().reports().size(), 1u);
  EXPECT_EQ(checked.checker().reports().front().hazard, Hazard::kReadAfterWrite);
}

}  // namespace
}  // namespace strake::test
