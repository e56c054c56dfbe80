#include "runtime/device/timed_device.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "runtime/device/cpu/cpu_device.h"

namespace strake::test {
namespace {

// A CPU device that says in which order the host asked its streams for what.
class Listening final : public ForwardingDevice {
 public:
  explicit Listening(Device& inner) : ForwardingDevice(inner) {}
  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override {
    return std::make_unique<ListeningStream>(*this, inner().make_stream(name, priority), asked);
  }
  std::vector<std::string> asked;

 private:
  class ListeningStream final : public ForwardingStream {
   public:
    ListeningStream(Device& device, std::unique_ptr<Stream> inner, std::vector<std::string>& asked)
        : ForwardingStream(device, std::move(inner)), asked_(asked) {}
    void launch(const Operation& operation, Body body) override {
      asked_.emplace_back(operation.kind == "hold" ? "hold" : operation.label.name);
      ForwardingStream::launch(operation, std::move(body));
    }
    void wait(const Event& event, WaitSite site) override {
      asked_.emplace_back("wait");
      ForwardingStream::wait(event, site);
    }
    void mark(Mark& mark) override {
      asked_.emplace_back("|");
      ForwardingStream::mark(mark);
    }

   private:
    std::vector<std::string>& asked_;
  };
};

void launch(
    Stream& stream, const char* name, Body body = [](NativeStream) {}) {
  stream.launch({.label = {name, Phase::kForward}, .kind = "test", .reads = {}, .writes = {}}, std::move(body));
}

class TimedDeviceTest : public testing::Test {
 protected:
  std::unique_ptr<Device> cpu_ = make_cpu_device();
  Listening listening_{*cpu_};
};

TEST_F(TimedDeviceTest, MarksStandAroundOperationsOfOneStreamWhileARunIsTimed) {
  TimedDevice device(listening_, {.stream = "compute"});
  const auto compute = device.make_stream("compute", StreamPriority::kNormal);
  const auto other = device.make_stream("comm", StreamPriority::kNormal);
  launch(*compute, "before");
  device.begin_run(0);
  launch(*compute, "a");
  launch(*compute, "b");
  launch(*other, "elsewhere");
  Event event = device.make_event("reduced");
  compute->wait(event, {"a test waits", Hazard::kReadAfterWrite});
  launch(*compute, "c");
  Mark mark = device.make_mark("of the account");
  compute->mark(mark);
  launch(*compute, "d");
  device.end_run();
  launch(*compute, "behind");
  const std::vector<std::string> expected{"before", "|", "a", "|", "|", "b", "|", "elsewhere", "wait",
                                          "|",      "c", "|", "|", "|", "d", "|", "behind"};
  EXPECT_EQ(listening_.asked, expected)
      << "the first is followed by an empty interval, and no wait lies in an interval";

  compute->synchronize();
  const TimedDevice::Times times = device.times(0);
  EXPECT_EQ(times.operations.size(), 4u);
  EXPECT_EQ(times.empty.size(), 1u);
  EXPECT_EQ(times.held, Nanoseconds(0));
  ASSERT_EQ(device.operations(0).size(), 4u);
  EXPECT_EQ(device.operations(0)[2].name, "c");
}

// Intervals that lie one behind the other add up to no more than what lies around them.
TEST_F(TimedDeviceTest, TimesAreOfEachOperationAlone) {
  TimedDevice device(*cpu_, {.stream = "compute"});
  const auto compute = device.make_stream("compute", StreamPriority::kNormal);
  Mark begin = device.make_mark("begin"), end = device.make_mark("end");
  const auto spin = [](int turns) {
    return [turns](NativeStream) {
      std::atomic<int> turned = 0;
      while (turned < turns) ++turned;
    };
  };
  device.begin_run(7);
  compute->mark(begin);
  launch(*compute, "long", spin(2'000'000));
  launch(*compute, "short", spin(1));
  compute->mark(end);
  device.end_run();
  compute->synchronize();
  const TimedDevice::Times times = device.times(7);
  ASSERT_EQ(times.operations.size(), 2u);
  EXPECT_GT(times.operations[0], Nanoseconds(0));
  EXPECT_LE(times.operations[0] + times.operations[1], device.elapsed(begin, end));
}

TEST_F(TimedDeviceTest, KeepsWhatAnOperationDeclares) {
  TimedDevice device(*cpu_, {.stream = "compute"});
  const auto compute = device.make_stream("compute", StreamPriority::kNormal);
  Arena arena("operands", MemoryKind::kDevice);
  const Tensor x = Tensor::reserve(arena, DType::kF32, {4, 8}), y = Tensor::reserve(arena, DType::kBF16, {4});
  arena.allocate(device);
  const std::array<Tensor, 2> reads{x, Tensor()};
  device.begin_run(0);
  compute->launch(
      {.label = {"h3.mlp", Phase::kBackward}, .kind = "sum", .reads = reads, .writes = {&y, 1}, .flops = 32},
      [](NativeStream) {});
  compute->launch({.label = {"known"}, .kind = "sum", .reads = reads, .writes = {}, .bytes = 5}, [](NativeStream) {});
  compute->zero({"zero"}, x);
  device.end_run();
  compute->synchronize();
  const DeclaredOperation& sum = device.operations(0)[0];
  EXPECT_EQ(sum.name, "h3.mlp");
  EXPECT_EQ(sum.kind, "sum");
  EXPECT_EQ(sum.phase, Phase::kBackward);
  EXPECT_EQ(sum.flops, 32);
  EXPECT_EQ(sum.bytes, 4 * 8 * 4 + 4 * 2) << "of what is defined";
  ASSERT_EQ(sum.reads.size(), 1u);
  EXPECT_EQ(sum.reads[0], (DeclaredOperation::Operand{DType::kF32, {4, 8}}));
  EXPECT_EQ(sum.writes[0], (DeclaredOperation::Operand{DType::kBF16, {4}}));
  EXPECT_EQ(device.operations(0)[1].bytes, 5) << "as it says";
  EXPECT_EQ(device.operations(0)[2].kind, "zero");
}

TEST_F(TimedDeviceTest, HoldsTheStreamUntilTheHostIsAhead) {
  TimedDevice device(listening_, {.stream = "compute", .lead_operations = 2});
  const auto compute = device.make_stream("compute", StreamPriority::kNormal);
  std::atomic<bool> enqueued = false, seen_enqueued = false;
  device.begin_run(0);
  launch(*compute, "a", [&](NativeStream) { seen_enqueued = enqueued.load(); });
  EXPECT_EQ(listening_.asked.front(), "|");
  EXPECT_EQ(listening_.asked[1], "hold");
  enqueued = true;  // nothing has run yet: the second is what releases the first
  launch(*compute, "b");
  compute->synchronize();
  EXPECT_TRUE(seen_enqueued);
  launch(*compute, "c");
  device.end_run();
  compute->synchronize();
  const TimedDevice::Times times = device.times(0);
  EXPECT_EQ(times.operations.size(), 3u);
  EXPECT_GT(times.held, Nanoseconds(0));
  EXPECT_EQ(device.operations(0).size(), 3u) << "what holds is none of the step's";
}

// A step that is shorter than the lead, a stream that goes while it is held: nobody waits for ever.
TEST_F(TimedDeviceTest, TheEndOfARunReleasesItToo) {
  std::atomic<int> ran = 0;
  {
    TimedDevice device(*cpu_, {.stream = "compute", .lead_operations = 100});
    const auto compute = device.make_stream("compute", StreamPriority::kNormal);
    for (std::int64_t run = 0; run < 3 * TimedDevice::kSlots; ++run) {
      device.begin_run(run);
      launch(*compute, "a", [&](NativeStream) { ++ran; });
      launch(*compute, "b", [&](NativeStream) { ++ran; });
    }
    launch(*compute, "held when its stream ends", [&](NativeStream) { ++ran; });
  }
  EXPECT_EQ(ran, 2 * 3 * TimedDevice::kSlots + 1);
}

TEST_F(TimedDeviceTest, KnowsTheLastRuns) {
  TimedDevice device(*cpu_, {.stream = "compute"});
  const auto compute = device.make_stream("compute", StreamPriority::kNormal);
  for (std::int64_t run = 0; run < 2 * TimedDevice::kSlots; ++run) {
    device.begin_run(run);
    for (std::int64_t i = 0; i <= run; ++i) launch(*compute, "a");
  }
  device.end_run();
  launch(*compute, "of none");
  compute->synchronize();
  for (std::int64_t run = TimedDevice::kSlots; run < 2 * TimedDevice::kSlots; ++run) {
    EXPECT_EQ(device.times(run).operations.size(), static_cast<std::size_t>(run + 1));
    EXPECT_EQ(device.operations(run).size(), static_cast<std::size_t>(run + 1));
  }
  EXPECT_DEATH(static_cast<void>(device.times(TimedDevice::kSlots - 1)), "run 3 was not timed");
}

// In the place of an earlier run's.
TEST_F(TimedDeviceTest, NamesWhatEachRunWasMadeOf) {
  TimedDevice device(*cpu_, {.stream = "compute"});
  const auto compute = device.make_stream("compute", StreamPriority::kNormal);
  const auto names = [&](std::int64_t run) {
    std::string out;
    for (const DeclaredOperation& operation : device.operations(run)) out += operation.name;
    return out;
  };
  const auto enqueue = [&](std::int64_t run, std::string_view letters) {
    device.begin_run(run);
    for (const char letter : letters) launch(*compute, std::string(1, letter).c_str());
    device.end_run();
  };
  enqueue(0, "abc");
  enqueue(TimedDevice::kSlots, "axcd");
  EXPECT_EQ(names(TimedDevice::kSlots), "axcd");
  enqueue(2 * TimedDevice::kSlots, "ax");
  EXPECT_EQ(names(2 * TimedDevice::kSlots), "ax");
}

}  // namespace
}  // namespace strake::test
