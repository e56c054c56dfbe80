// What every backend and every wrapper promises (runtime/device/device.h), as tests. A backend's test program includes
// this file and instantiates the suite with its factories:
//
//   INSTANTIATE_TEST_SUITE_P(Devices, DeviceContract, testing::ValuesIn(kCpuDevices), name_of_device);
//
// Order is shown by gates: hold a stream, show who has not moved and that the host was not blocked, open, show who
// moved.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/device/host_memory.h"
#include "tests/runtime/device/device_under_test.h"
#include "tests/support/gate.h"

namespace strake::test {

class DeviceContract : public testing::TestWithParam<DeviceFactory> {
 protected:
  // Set by an operation, looked at by the test; orders nothing.
  class Flag {
   public:
    void set() { set_.store(true, std::memory_order_relaxed); }
    explicit operator bool() const { return set_.load(std::memory_order_relaxed); }

   private:
    std::atomic<bool> set_{false};
  };

  DeviceUnderTest& under_test() { return *under_test_; }
  Device& device() { return under_test_->device(); }
  std::unique_ptr<Stream> stream(std::string_view name) { return device().make_stream(name, StreamPriority::kNormal); }
  Event event(std::string_view name = "event") { return device().make_event(name); }
  Mark mark(std::string_view name = "mark") { return device().make_mark(name); }

  void call(Stream& stream, std::function<void()> function) {
    stream.launch({.label = {"call"}, .kind = "host function", .reads = {}, .writes = {}},
                  under_test_->host_function(std::move(function)));
  }
  void set(Stream& stream, Flag& flag) {
    call(stream, [&flag] { flag.set(); });
  }
  std::unique_ptr<StreamGate> make_gate() { return under_test_->make_gate(); }
  static void hold(Stream& stream, StreamGate& gate) {
    stream.launch({.label = {"hold"}, .kind = "gate", .reads = {}, .writes = {}}, gate.body());
  }
  static void wait(Stream& stream, const Event& event) { stream.wait(event, {"test", Hazard::kReadAfterWrite}); }
  // Lets a stream that could move use its chance: others run operations in the meantime.
  void give_time() {
    auto other = stream("other");
    for (int i = 0; i < 20; ++i) {
      Flag flag;
      set(*other, flag);
      other->synchronize();
      ASSERT_TRUE(flag);
    }
  }

 private:
  void SetUp() override {
    if (const std::string reason = GetParam().unavailable(); !reason.empty()) GTEST_SKIP() << reason;
    under_test_ = GetParam().make();
  }

  std::unique_ptr<DeviceUnderTest> under_test_;
};

TEST_P(DeviceContract, StreamsHaveNamesAndIndices) {
  const auto a = stream("compute"), b = stream("comm");
  EXPECT_EQ(a->name(), "compute");
  EXPECT_EQ(b->name(), "comm");
  EXPECT_EQ(a->index(), 0);
  EXPECT_EQ(b->index(), 1);
  EXPECT_EQ(&a->device(), &device());
  EXPECT_EQ(event("batch").name(), "batch");
  EXPECT_EQ(mark("backward").name(), "backward");
  EXPECT_FALSE(device().description().empty());
}

TEST_P(DeviceContract, HeldStreamDoesNotMoveAndNobodyElseIsBlocked) {
  const auto gate = make_gate();
  Flag behind_gate, elsewhere;
  const auto a = stream("a"), b = stream("b");
  Event after = event();
  hold(*a, *gate);
  set(*a, behind_gate);
  a->record(after);
  set(*b, elsewhere);
  b->synchronize();
  EXPECT_TRUE(elsewhere);
  ASSERT_TRUE(wait_until([&] { return gate->reached(); }));
  EXPECT_FALSE(behind_gate);
  EXPECT_FALSE(device().complete(after));
  gate->open();
  a->synchronize();
  EXPECT_TRUE(behind_gate);
  EXPECT_TRUE(device().complete(after));
}

TEST_P(DeviceContract, RunsOperationsOfOneStreamInOrder) {
  std::vector<int> order;
  const auto a = stream("a");
  for (int i = 0; i < 1000; ++i) call(*a, [&order, i] { order.push_back(i); });
  a->synchronize();
  std::vector<int> expected(1000);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST_P(DeviceContract, WaitBlocksUntilTheEventCompletes) {
  const auto gate = make_gate();
  Flag before_wait, behind_wait;
  int written = 0, seen = 0;
  const auto a = stream("a"), b = stream("b");
  Event written_event = event();
  hold(*a, *gate);
  call(*a, [&] { written = 42; });
  a->record(written_event);
  set(*b, before_wait);
  wait(*b, written_event);
  call(*b, [&] { seen = written; });
  set(*b, behind_wait);
  ASSERT_TRUE(wait_until([&] { return static_cast<bool>(before_wait); }));
  give_time();
  EXPECT_FALSE(behind_wait);
  gate->open();
  b->synchronize();
  EXPECT_TRUE(behind_wait);
  EXPECT_EQ(seen, 42);
}

TEST_P(DeviceContract, WaitCoversTheLatestOfSeveralRecords) {
  const auto gate = make_gate();
  Flag behind_wait;
  const auto a = stream("a"), b = stream("b");
  Event recorded = event();
  a->record(recorded);
  hold(*a, *gate);
  a->record(recorded);
  wait(*b, recorded);
  set(*b, behind_wait);
  ASSERT_TRUE(wait_until([&] { return gate->reached(); }));  // the first record has run
  give_time();
  EXPECT_FALSE(behind_wait);
  EXPECT_FALSE(device().complete(recorded));
  gate->open();
  b->synchronize();
  EXPECT_TRUE(behind_wait);
}

TEST_P(DeviceContract, WaitIsNotMovedByALaterRecord) {
  const auto first = make_gate(), second = make_gate();
  Flag behind_wait;
  const auto a = stream("a"), b = stream("b");
  Event recorded = event();
  hold(*a, *first);
  a->record(recorded);
  wait(*b, recorded);
  set(*b, behind_wait);
  hold(*a, *second);
  a->record(recorded);
  ASSERT_TRUE(wait_until([&] { return first->reached(); }));
  give_time();
  EXPECT_FALSE(behind_wait);
  first->open();
  b->synchronize();
  EXPECT_TRUE(behind_wait);
  EXPECT_FALSE(device().complete(recorded));  // the second record has not run
  second->open();
  a->synchronize();
  EXPECT_TRUE(device().complete(recorded));
}

TEST_P(DeviceContract, WaitForAnEventRecordedOnlyLaterPasses) {
  const auto gate = make_gate();
  Flag behind_wait;
  const auto a = stream("a"), b = stream("b");
  Event recorded = event();
  wait(*b, recorded);
  set(*b, behind_wait);
  hold(*a, *gate);
  a->record(recorded);
  b->synchronize();
  EXPECT_TRUE(behind_wait);
  EXPECT_FALSE(device().complete(recorded));
  gate->open();
}

TEST_P(DeviceContract, EventNeverRecordedIsComplete) {
  Flag behind_wait;
  const auto a = stream("a");
  const Event never = event();
  wait(*a, never);
  set(*a, behind_wait);
  a->synchronize();
  EXPECT_TRUE(behind_wait);
  EXPECT_TRUE(device().complete(never));
  device().synchronize(never);
  device().host_wait(device().ticket(never));
}

TEST_P(DeviceContract, StreamMayWaitForItself) {
  Flag behind_wait;
  const auto a = stream("a");
  Event recorded = event();
  a->record(recorded);
  wait(*a, recorded);
  set(*a, behind_wait);
  a->synchronize();
  EXPECT_TRUE(behind_wait);
}

TEST_P(DeviceContract, WaitsForSeveralStreams) {
  const std::array gates{make_gate(), make_gate()};
  Flag joined;
  const auto a = stream("a"), b = stream("b"), c = stream("c");
  Event done_a = event("a"), done_b = event("b");
  hold(*a, *gates[0]);
  a->record(done_a);
  hold(*b, *gates[1]);
  b->record(done_b);
  wait(*c, done_a);
  wait(*c, done_b);
  set(*c, joined);
  gates[1]->open();
  b->synchronize();
  give_time();
  EXPECT_FALSE(joined);
  gates[0]->open();
  c->synchronize();
  EXPECT_TRUE(joined);
}

TEST_P(DeviceContract, OneEventReleasesSeveralStreams) {
  const auto gate = make_gate();
  Flag flags[3];
  const auto a = stream("a");
  Event recorded = event();
  hold(*a, *gate);
  a->record(recorded);
  std::vector<std::unique_ptr<Stream>> waiting;
  for (Flag& flag : flags) {
    waiting.push_back(stream("waiting"));
    wait(*waiting.back(), recorded);
    set(*waiting.back(), flag);
  }
  give_time();
  for (const Flag& flag : flags) EXPECT_FALSE(flag);
  gate->open();
  for (const auto& waiter : waiting) waiter->synchronize();
  for (const Flag& flag : flags) EXPECT_TRUE(flag);
}

TEST_P(DeviceContract, CompleteFollowsTheLatestRecord) {
  const auto gate = make_gate();
  const auto a = stream("a");
  Event recorded = event();
  a->record(recorded);
  ASSERT_TRUE(wait_until([&] { return device().complete(recorded); }));
  hold(*a, *gate);
  a->record(recorded);
  EXPECT_FALSE(device().complete(recorded));
  gate->open();
  ASSERT_TRUE(wait_until([&] { return device().complete(recorded); }));
}

TEST_P(DeviceContract, SynchronizeOrdersTheHostBehindTheRecordOnly) {
  const auto gate = make_gate();
  int written = 0;
  const auto a = stream("a");
  Event recorded = event();
  call(*a, [&] { written = 7; });
  a->record(recorded);
  hold(*a, *gate);
  device().synchronize(recorded);  // would hang if it waited for the whole stream
  EXPECT_EQ(written, 7);
  gate->open();
}

TEST_P(DeviceContract, OtherHostThreadsWaitForTickets) {
  for (const bool recorded_again : {false, true}) {
    const auto gate = make_gate();
    Flag returned;
    int written = 0, seen = 0;
    const auto a = stream("a");
    Event recorded = event();
    hold(*a, *gate);
    call(*a, [&] { written = 5; });
    a->record(recorded);
    const EventTicket ticket = device().ticket(recorded);
    if (recorded_again) a->record(recorded);
    std::thread reader([&] {
      device().host_wait(ticket);
      seen = written;
      returned.set();
    });
    give_time();
    EXPECT_FALSE(returned);
    gate->open();
    reader.join();
    EXPECT_EQ(seen, 5);
  }
}

TEST_P(DeviceContract, QueuedWorkOutlivesTheEventHandle) {
  const auto gate = make_gate();
  Flag behind_wait;
  const auto a = stream("a"), b = stream("b");
  {
    Event short_lived = event();
    hold(*a, *gate);
    a->record(short_lived);
    wait(*b, short_lived);
  }
  set(*b, behind_wait);
  give_time();
  EXPECT_FALSE(behind_wait);
  gate->open();
  b->synchronize();
  EXPECT_TRUE(behind_wait);
}

TEST_P(DeviceContract, DestroyingAStreamDrainsIt) {
  const auto gate = make_gate();
  int ran = 0;
  std::thread opener;
  {
    const auto a = stream("a");
    hold(*a, *gate);
    for (int i = 0; i < 100; ++i) call(*a, [&ran] { ++ran; });
    opener = std::thread([&gate] {
      EXPECT_TRUE(wait_until([&] { return gate->reached(); }));
      gate->open();
    });
  }
  EXPECT_EQ(ran, 100);
  opener.join();
}

// The interface of marks has nothing that orders, and that of events nothing that tells time.
template <typename Point>
concept CanBeWaitedFor = requires(Stream& stream, const Point& point) {
  stream.wait(point, {"test", Hazard::kReadAfterWrite});
}
|| requires(Device& device, const Point& point) { device.synchronize(point); }
|| requires(Device& device, const Point& point) { device.ticket(point); };
template <typename Point>
concept TellsTime = requires(const Device& device, const Point& point) {
  device.elapsed(point, point);
}
|| requires(const Device& device, const Point& point) { device.starved(point, point); };
static_assert(CanBeWaitedFor<Event> && !TellsTime<Event>);
static_assert(!CanBeWaitedFor<Mark> && TellsTime<Mark>);

TEST_P(DeviceContract, AMarkIsReachedInTheOrderOfItsStream) {
  const auto gate = make_gate();
  const auto a = stream("a");
  Mark before = mark(), behind = mark();
  a->mark(before);
  hold(*a, *gate);
  a->mark(behind);
  ASSERT_TRUE(wait_until([&] { return gate->reached(); }));
  EXPECT_TRUE(wait_until([&] { return device().complete(before); }));
  give_time();
  EXPECT_FALSE(device().complete(behind));
  gate->open();
  EXPECT_TRUE(wait_until([&] { return device().complete(behind); }));
}

TEST_P(DeviceContract, AMarkMadeAgainMeansTheLatest) {
  const auto gate = make_gate();
  const auto a = stream("a");
  Mark first = mark(), again = mark();
  a->mark(first);
  a->mark(again);
  ASSERT_TRUE(wait_until([&] { return device().complete(again); }));
  const Nanoseconds before = device().elapsed(first, again);
  hold(*a, *gate);
  a->mark(again);
  EXPECT_FALSE(device().complete(again));
  ASSERT_TRUE(wait_until([&] { return gate->reached(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  gate->open();
  ASSERT_TRUE(wait_until([&] { return device().complete(again); }));
  EXPECT_GT(device().elapsed(first, again), before);
}

TEST_P(DeviceContract, AMarkNeverMadeIsComplete) { EXPECT_TRUE(device().complete(mark())); }

TEST_P(DeviceContract, QueuedWorkOutlivesTheHandleOfAMark) {
  const auto gate = make_gate();
  const auto a = stream("a");
  hold(*a, *gate);
  {
    Mark short_lived = mark();
    a->mark(short_lived);
  }
  gate->open();
  a->synchronize();
}

TEST_P(DeviceContract, ElapsedCoversTheTimeBetweenTwoMarks) {
  const auto gate = make_gate();
  const auto a = stream("a"), b = stream("b");
  Mark before = mark(), after = mark(), elsewhere = mark();
  Event released = event(), all = event();
  a->mark(before);
  hold(*a, *gate);
  a->mark(after);
  a->record(released);
  wait(*b, released);
  b->mark(elsewhere);
  b->record(all);
  ASSERT_TRUE(wait_until([&] { return gate->reached(); }));  // `before` has run
  const auto held_from = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  const auto held = std::chrono::steady_clock::now() - held_from;
  gate->open();
  device().synchronize(all);
  EXPECT_GE(device().elapsed(before, after), held);
  EXPECT_GE(device().elapsed(before, elsewhere), device().elapsed(before, after));
  EXPECT_EQ(device().elapsed(after, before), -device().elapsed(before, after));
}

// Along every chain of streams and events time never runs backwards.
TEST_P(DeviceContract, TimeIsMonotoneAlongTheOrder) {
  constexpr std::size_t kMarks = 300;
  std::array<std::unique_ptr<Stream>, 3> streams{stream("a"), stream("b"), stream("c")};
  std::vector<Mark> marks;
  Event passed = event();
  for (std::size_t i = 0; i < kMarks; ++i) {
    Stream& at = *streams[(i + i / 5) % 3];
    if (i > 0) wait(at, passed);
    at.mark(marks.emplace_back(mark()));
    call(at, [] {});
    at.record(passed);
  }
  device().synchronize(passed);
  for (std::size_t i = 0; i < kMarks; ++i) ASSERT_TRUE(device().complete(marks[i])) << i;
  for (std::size_t i = 1; i < kMarks; ++i) ASSERT_GE(device().elapsed(marks[i - 1], marks[i]), Nanoseconds(0)) << i;
  EXPECT_GT(device().elapsed(marks.front(), marks.back()), Nanoseconds(0));
}

TEST_P(DeviceContract, FreshMemoryIsZeroAndCounted) {
  const std::size_t before_bytes = device().allocated_bytes();
  Arena arena("device", MemoryKind::kDevice), host("host", MemoryKind::kHost);
  const Tensor source = Tensor::reserve(arena, DType::kU8, {5000});
  const Tensor seen = Tensor::reserve(host, DType::kU8, {5000});
  {
    const auto a = stream("a");
    arena.allocate(device());
    host.allocate(device());
    EXPECT_EQ(device().allocated_bytes(), before_bytes + arena.size_bytes() + host.size_bytes());
    EXPECT_TRUE(std::ranges::all_of(host_bytes(seen), [](std::byte value) { return value == std::byte{0}; }));
    std::ranges::fill(host_bytes(seen), std::byte{0xff});
    a->copy({"d2h"}, seen, source);
    a->synchronize();
  }
  EXPECT_TRUE(std::ranges::all_of(host_bytes(seen), [](std::byte value) { return value == std::byte{0}; }));
}

TEST_P(DeviceContract, FreedMemoryIsNoLongerCounted) {
  const std::size_t before_bytes = device().allocated_bytes();
  {
    Arena arena("short", MemoryKind::kDevice);
    arena.reserve(1000);
    arena.allocate(device());
    EXPECT_EQ(device().allocated_bytes(), before_bytes + 1024);
  }
  EXPECT_EQ(device().allocated_bytes(), before_bytes);
}

TEST_P(DeviceContract, CopiesAndZeroesExactlyTheirRange) {
  Arena arena("device", MemoryKind::kDevice), host("host", MemoryKind::kHost);
  const Tensor on_device = Tensor::reserve(arena, DType::kI32, {1000});
  const Tensor other = Tensor::reserve(arena, DType::kI32, {10, 100});
  const Tensor source = Tensor::reserve(host, DType::kI32, {1000});
  const Tensor seen = Tensor::reserve(host, DType::kI32, {1000});
  const auto a = stream("a");
  arena.allocate(device());
  host.allocate(device());
  const auto values = host_span<std::int32_t>(source);
  std::iota(values.begin(), values.end(), 1);

  a->copy({"h2d"}, on_device, source);
  a->zero({"zero"}, on_device.flat(10, 3));
  a->copy({"d2d"}, other, on_device);
  a->copy({"d2d"}, other.slice(0, 0, 1), on_device.flat(500, 100).reshape({1, 100}));
  a->copy({"d2h"}, seen, other);
  a->synchronize();
  for (std::int32_t i = 0; i < 1000; ++i) {
    const std::int32_t expected = i < 100 ? 501 + i : i + 1;
    ASSERT_EQ(host_span<std::int32_t>(seen)[static_cast<std::size_t>(i)], expected) << i;
  }
  a->copy({"d2h"}, seen, on_device);
  a->synchronize();
  for (std::int32_t i = 0; i < 1000; ++i) {
    const std::int32_t expected = i >= 10 && i < 13 ? 0 : i + 1;
    ASSERT_EQ(host_span<std::int32_t>(seen)[static_cast<std::size_t>(i)], expected) << i;
  }
}

TEST_P(DeviceContract, CopyOfStridedTensorIsAProgrammerError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Arena arena("device", MemoryKind::kDevice);
  const Tensor matrix = Tensor::reserve(arena, DType::kI32, {4, 4});
  const Tensor column = matrix.slice(1, 0, 1);
  EXPECT_DEATH(stream("a")->copy({"column"}, matrix.flat(0, 4), column), "copy of i32\\[4, 1\\] strided");
  EXPECT_DEATH(stream("a")->zero({"column"}, column), "zero of a strided tensor");
}

// A random program over four streams, with the waits that its hazards need and some that nobody needs,
// gives what the same program gives when run line by line.
TEST_P(DeviceContract, RandomProgramEqualsItsSerialModel) {
  constexpr std::size_t kStreams = 4, kCells = 24;
  constexpr std::int64_t kOperations = 100'000;
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&random](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };

  Arena arena("cells", MemoryKind::kDevice), host("cells on the host", MemoryKind::kHost);
  std::vector<Tensor> cells, seen;
  for (std::size_t i = 0; i < kCells; ++i) {
    cells.push_back(Tensor::reserve(arena, DType::kI64, {1}));
    seen.push_back(Tensor::reserve(host, DType::kI64, {1}));
  }
  arena.allocate(device());
  host.allocate(device());

  struct Access {
    std::size_t stream;
    std::int64_t number;
  };
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<Event> events;
  for (std::size_t i = 0; i < kStreams; ++i) {
    streams.push_back(stream("stream " + std::to_string(i)));
    events.push_back(event("event " + std::to_string(i)));
  }
  std::array<std::int64_t, kStreams> launched{}, recorded{};
  std::array<std::array<std::int64_t, kStreams>, kStreams> ordered{};  // [s][t]: s runs after so many of t
  std::array<std::vector<Access>, kCells> accesses;                    // the last write, then the reads since
  std::array<std::int64_t, kCells> model{};

  const auto record = [&](std::size_t s) {
    streams[s]->record(events[s]);
    recorded[s] = launched[s];
  };
  const auto wait_for = [&](std::size_t s, std::size_t t) {
    wait(*streams[s], events[t]);
    ordered[s][t] = std::max(ordered[s][t], recorded[t]);
  };
  const auto order = [&](std::size_t s, const Access& earlier) {
    if (s == earlier.stream || ordered[s][earlier.stream] >= earlier.number) return;
    if (recorded[earlier.stream] < earlier.number) record(earlier.stream);
    wait_for(s, earlier.stream);
  };

  for (std::int64_t id = 0; id < kOperations; ++id) {
    const std::size_t s = below(kStreams), to = below(kCells);
    const std::array<std::size_t, 2> from{below(kCells), below(kCells)};
    if (below(8) == 0) wait_for(s, below(kStreams));
    if (below(16) == 0) record(below(kStreams));
    if (below(10'000) == 0) streams[below(kStreams)]->synchronize();
    if (below(10'000) == 0) device().synchronize(events[below(kStreams)]);

    for (const Access& access : accesses[to]) order(s, access);
    for (const std::size_t cell : from) {
      if (!accesses[cell].empty()) order(s, accesses[cell].front());
    }
    const Access access{s, ++launched[s]};
    for (const std::size_t cell : from) {
      if (accesses[cell].empty()) accesses[cell].push_back({s, 0});  // never written: before everything
      accesses[cell].push_back(access);
    }
    accesses[to].assign(1, access);

    const std::array<Tensor, 3> reads{cells[to], cells[from[0]], cells[from[1]]};
    streams[s]->launch({.label = {"mix"}, .kind = "mix", .reads = reads, .writes = {&reads[0], 1}},
                       under_test().mix(id, reads));
    model[to] = mixed(id, model[to], model[from[0]], model[from[1]]);
  }
  for (const auto& each : streams) each->synchronize();
  for (std::size_t i = 0; i < kCells; ++i) streams[0]->copy({"d2h"}, seen[i], cells[i]);
  streams[0]->synchronize();
  for (std::size_t i = 0; i < kCells; ++i) EXPECT_EQ(host_span<std::int64_t>(seen[i])[0], model[i]) << "cell " << i;
}

}  // namespace strake::test
