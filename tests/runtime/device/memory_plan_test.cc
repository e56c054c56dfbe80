#include "runtime/device/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/order_checker.h"

namespace strake {

bool operator==(const MemoryLife& a, const MemoryLife& b) {
  return a.first_entry == b.first_entry && a.last_entry == b.last_entry;
}
void PrintTo(const MemoryLife& life, std::ostream* out) { *out << life.first_entry << "-" << life.last_entry; }

namespace test {
namespace {

std::size_t aligned(std::size_t size_bytes) {
  return (size_bytes + Arena::kAlignmentBytes - 1) / Arena::kAlignmentBytes * Arena::kAlignmentBytes;
}

bool overlap(const MemoryBlock& a, const MemoryBlock& b) {
  return a.offset_bytes < b.offset_bytes + b.size_bytes && b.offset_bytes < a.offset_bytes + a.size_bytes;
}

using Lives = std::vector<MemoryLife>;

class MemoryPlanTest : public testing::Test {
 protected:
  enum Streams : std::size_t { kCompute, kComm };

  MemoryPlan plan() { return plan_memory(memory_.blocks(), planning_, device_.recording()); }
  // Offsets of the blocks, in order of reservation.
  std::vector<std::size_t> offsets() {
    std::vector<std::size_t> out;
    const MemoryPlan planned = plan();
    for (const MemoryBlock& block : planned.blocks) out.push_back(block.offset_bytes);
    total_bytes_ = planned.size_bytes;
    return out;
  }
  // Do the first two blocks, of one size, lie on the same bytes?
  bool share() {
    const auto at = offsets();
    return at[0] == at[1];
  }
  Lives lives(std::size_t block) { return plan().blocks[block].lives; }

  Tensor block(std::int64_t size_bytes) { return memory_.reserve("block", DType::kU8, {size_bytes}); }
  void operation(std::vector<Tensor> reads, std::vector<Tensor> writes, std::size_t stream = kCompute) {
    streams_[stream]->launch({.label = {"f"}, .kind = "test", .reads = reads, .writes = writes}, {});
  }
  void write(const Tensor& tensor, std::size_t stream = kCompute) { operation({}, {tensor}, stream); }
  void read(const Tensor& tensor, std::size_t stream = kCompute) { operation({tensor}, {}, stream); }
  void order(std::size_t earlier, std::size_t later) {
    Event event = device_.make_event("event");
    streams_[earlier]->record(event);
    streams_[later]->wait(event, {"test", Hazard::kReadAfterWrite});
  }

  Arena planning_{"planning", MemoryKind::kDevice};
  ActivationMemory memory_{planning_};
  PlanDevice device_;
  std::array<std::unique_ptr<Stream>, 2> streams_{device_.make_stream("compute", StreamPriority::kNormal),
                                                  device_.make_stream("comm", StreamPriority::kHigh)};
  std::size_t total_bytes_ = 0;
};

TEST_F(MemoryPlanTest, LivesThatDoNotMeetShareBytes) {
  const Tensor a = block(1000), b = block(1000);
  write(a);
  read(a);
  write(b);
  EXPECT_EQ(offsets(), (std::vector<std::size_t>{0, 0}));
  EXPECT_EQ(total_bytes_, 1024u);
  EXPECT_EQ(lives(0), (Lives{{0, 1}}));
  EXPECT_EQ(lives(1), (Lives{{2, 2}}));
}

TEST_F(MemoryPlanTest, LivesThatMeetInOneOperationDoNot) {
  const Tensor a = block(1000), b = block(1000);
  write(a);
  operation({a}, {b});
  EXPECT_EQ(offsets(), (std::vector<std::size_t>{0, 1024}));
  EXPECT_EQ(total_bytes_, 2048u);
}

TEST_F(MemoryPlanTest, ALifeLastsToItsLastAccess) {
  const Tensor kept = block(512), first = block(256), second = block(256);
  write(kept);
  write(first);
  write(second);
  read(kept.flat(3, 1));  // a view keeps the block alive
  EXPECT_EQ(offsets(), (std::vector<std::size_t>{0, 512, 512}));
  EXPECT_EQ(total_bytes_, 768u);
  EXPECT_EQ(lives(0), (Lives{{0, 3}}));
}

// More blocks than are looked at at once: each two of them against what their lives and streams say.
TEST_F(MemoryPlanTest, EveryTwoOfManyBlocksShareOrNot) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::size_t kBlocks = 300;
  std::vector<Tensor> tensors;
  std::vector<std::size_t> streams, to_read;
  for (std::size_t i = 0; i < kBlocks; ++i) {
    tensors.push_back(block(256));
    streams.push_back(random() % 2);
  }
  for (const Tensor& tensor : tensors) {
    const auto index = static_cast<std::size_t>(&tensor - tensors.data());
    write(tensor, streams[index]);
    to_read.push_back(index);
    while (random() % 2 == 0 && !to_read.empty()) {  // some live long
      const auto at = to_read.begin() + static_cast<std::ptrdiff_t>(random() % to_read.size());
      read(tensors[*at], streams[*at]);
      to_read.erase(at);
    }
  }
  std::vector<MemoryBlock> blocks = memory_.blocks();
  const MemoryLives lives(blocks, planning_, device_.recording());
  std::size_t shared = 0;
  for (std::size_t a = 0; a < kBlocks; ++a) {
    ASSERT_EQ(blocks[a].lives.size(), 1u);
    for (std::size_t b = 0; b < kBlocks; ++b) {
      if (a == b) continue;
      const MemoryLife x = blocks[a].lives.front(), y = blocks[b].lives.front();
      const bool apart_in_time = x.last_entry < y.first_entry || y.last_entry < x.first_entry;
      ASSERT_EQ(lives.may_share(a, b), apart_in_time && streams[a] == streams[b]) << a << ", " << b;
      shared += lives.may_share(a, b) ? 1 : 0;
    }
  }
  EXPECT_GT(shared, kBlocks);
}

// What micro-batches do: between its lives nobody misses the bytes of a block.
TEST_F(MemoryPlanTest, AFullOverwriteBeginsANewLife) {
  const Tensor a = block(256), b = block(256);
  for (int micro = 0; micro < 3; ++micro) {
    write(a);
    read(a);
    write(b);
    read(b);
  }
  EXPECT_EQ(lives(0), (Lives{{0, 1}, {4, 5}, {8, 9}}));
  EXPECT_EQ(lives(1), (Lives{{2, 3}, {6, 7}, {10, 11}}));
  EXPECT_TRUE(share());
}

TEST_F(MemoryPlanTest, OneLifeThatMeetsKeepsBlocksApart) {
  const Tensor a = block(256), b = block(256);
  write(a);
  write(b);
  write(a);
  operation({}, {b});
  read(a);  // here
  EXPECT_FALSE(share());
}

TEST_F(MemoryPlanTest, WritesOfOneOperationThatCoverTheBlockOverwriteIt) {
  const Tensor a = block(256);
  operation({}, {a.flat(100, 156), a.flat(0, 120)});
  read(a);
  operation({}, {a.flat(0, 100), a.flat(101, 155)});  // a byte is left
  read(a);
  EXPECT_EQ(lives(0), (Lives{{0, 3}}));
}

TEST_F(MemoryPlanTest, WhatReadsTheBlockDoesNotOverwriteIt) {
  const Tensor a = block(256);
  write(a);
  operation({a}, {a});
  operation({a.flat(255, 1)}, {a});
  write(a);
  EXPECT_EQ(lives(0), (Lives{{0, 2}, {3, 3}}));
}

TEST_F(MemoryPlanTest, StridedWritesDoNotOverwrite) {
  const Tensor a = block(256);
  const Tensor left = a.reshape({16, 16}).slice(1, 0, 15);  // from the first byte on, yet not all of them
  const Tensor all_but_last = a.with_strides({2, 128}, {128, 1});
  write(all_but_last);
  write(left);
  operation({}, {left, a.reshape({16, 16}).slice(1, 15, 1)});
  EXPECT_EQ(lives(0), (Lives{{0, 2}})) << "only what is surely whole counts";
}

TEST_F(MemoryPlanTest, WhatIsNotOverwrittenFirstLivesThroughTheStep) {
  const Tensor carried = block(256), other = block(256), half = block(256);
  write(other);
  operation({carried}, {carried});
  write(carried);  // too late: its last value is read in the next step
  write(half.flat(0, 128));
  write(half);
  EXPECT_EQ(lives(0), (Lives{{0, 4}}));
  EXPECT_EQ(lives(2), (Lives{{0, 4}}));
  EXPECT_EQ(offsets(), (std::vector<std::size_t>{0, 256, 512}));
}

TEST_F(MemoryPlanTest, UnorderedLivesOfTwoStreamsStayApart) {
  const Tensor a = block(256), b = block(256);
  write(a);
  read(a);
  write(b, kComm);
  EXPECT_FALSE(share());
}

TEST_F(MemoryPlanTest, LivesOfTwoStreamsShareWhereWaitsOrderThemInThisStepAndTheNext) {
  const Tensor a = block(256), b = block(256);
  write(a);
  read(a);
  order(kCompute, kComm);
  write(b, kComm);
  EXPECT_FALSE(share()) << "the next step's write of a is not behind b";
  order(kComm, kCompute);
  EXPECT_TRUE(share());
}

TEST_F(MemoryPlanTest, TheOrderOfTheNextStepIsNotTheOrderOfThisOne) {
  const Tensor a = block(256), b = block(256);
  order(kComm, kCompute);  // what comm did in the step before is behind this
  write(a);
  read(a);
  write(b, kComm);
  EXPECT_FALSE(share()) << "in one step nothing orders them";
}

TEST_F(MemoryPlanTest, TheLastAccessOfEveryStreamCounts) {
  const Tensor a = block(256), b = block(256);
  write(a);
  order(kCompute, kComm);
  read(a, kComm);
  read(a);
  write(b);
  order(kComm, kCompute);
  EXPECT_FALSE(share()) << "b's write is behind compute's read, and not behind comm's";
}

TEST_F(MemoryPlanTest, BlocksOfSeveralStreamsShareWhereAllIsOrdered) {
  const Tensor a = block(256), b = block(256);
  for (const Tensor& each : {a, b}) {
    write(each);
    order(kCompute, kComm);
    read(each, kComm);
    order(kComm, kCompute);
  }
  EXPECT_TRUE(share());
}

// With rings of events the record may lie many steps back.
TEST_F(MemoryPlanTest, AWaitForARecordOfAnEarlierStepCountsForNothing) {
  const Tensor a = block(256), b = block(256);
  Event done = device_.make_event("done");
  streams_[kCompute]->wait(done, {"test", Hazard::kWriteAfterRead});
  write(a);
  order(kCompute, kComm);
  write(b, kComm);
  streams_[kComm]->record(done);
  EXPECT_FALSE(share());
}

TEST_F(MemoryPlanTest, EventsOfOneNameAreNotMistakenForEachOther) {
  const Tensor a = block(256), b = block(256);
  Event early = device_.make_event("event"), late = device_.make_event("event");
  streams_[kCompute]->record(early);
  write(a);
  streams_[kCompute]->record(late);
  streams_[kComm]->wait(early, {"test", Hazard::kReadAfterWrite});
  write(b, kComm);
  order(kComm, kCompute);
  EXPECT_FALSE(share());
}

TEST_F(MemoryPlanTest, AWaitBindsToTheLatestRecordBeforeIt) {
  const Tensor a = block(256), b = block(256);
  Event event = device_.make_event("event");
  streams_[kCompute]->record(event);
  write(a);
  streams_[kCompute]->record(event);
  streams_[kComm]->wait(event, {"test", Hazard::kReadAfterWrite});
  write(b, kComm);
  order(kComm, kCompute);
  EXPECT_TRUE(share());
}

TEST_F(MemoryPlanTest, ABlockWhoseOwnAccessesAreNotOrderedLivesThroughTheStep) {
  const Tensor read_late = block(256), read_early = block(256), written_twice = block(256);
  write(read_late);
  order(kCompute, kComm);
  read(read_late, kComm);  // the next step's write is not behind this
  write(read_early);
  read(read_early, kComm);  // not behind the write
  write(written_twice, kComm);
  write(written_twice);  // not behind the other
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(lives(i), (Lives{{0, device_.recording().entries.size() - 1}})) << i;
  order(kComm, kCompute);
  EXPECT_EQ(lives(0), (Lives{{0, 3}}));
  for (std::size_t i = 1; i < 3; ++i) EXPECT_EQ(lives(i), (Lives{{0, device_.recording().entries.size() - 1}})) << i;
}

TEST_F(MemoryPlanTest, MarksOrderNothing) {
  const Tensor a = block(256), b = block(256);
  Mark mark = device_.make_mark("mark");
  write(a);
  streams_[kCompute]->mark(mark);
  streams_[kComm]->mark(mark);
  write(b, kComm);
  EXPECT_FALSE(share());
}

// The checker is what proves a plan: given one that shares what is not ordered, it must say so.
TEST_F(MemoryPlanTest, SharedBytesOfUnorderedLivesAreReported) {
  const auto reports = [](bool shared) {
    Arena arena("activations", MemoryKind::kDevice);
    arena.reserve(512);
    ActivationMemory memory(arena, {{.name = "a", .size_bytes = 256, .offset_bytes = 0},
                                    {.name = "b", .size_bytes = 256, .offset_bytes = shared ? 0u : 256u}});
    const Tensor a = memory.reserve("a", DType::kU8, {256}), b = memory.reserve("b", DType::kU8, {256});
    PlanDevice plan;
    CheckedDevice device(plan, CheckedDevice::Policy::kCollect);
    const auto compute = device.make_stream("compute", StreamPriority::kNormal);
    const auto comm = device.make_stream("comm", StreamPriority::kHigh);
    compute->zero({"write a"}, a);
    comm->zero({"write b"}, b);
    std::vector<std::string> out;
    for (const OrderChecker::Report& report : device.checker().reports()) out.push_back(report.describe());
    return out;
  };
  EXPECT_EQ(reports(false), std::vector<std::string>{});
  EXPECT_EQ(reports(true), (std::vector<std::string>{"WAW: 'write b' on stream comm is not ordered after 'write a' on "
                                                     "stream compute (arena activations, bytes 0-256)"}));
}

TEST_F(MemoryPlanTest, FillsTheLowestGapThatFits) {
  const Tensor low = block(1024), high = block(768), large = block(2048), small = block(512);
  // large is gone before the others come; small meets high.
  write(large);
  write(low);
  operation({low}, {high});
  operation({high}, {small});
  const auto at = offsets();
  EXPECT_EQ(at[2], 0u);  // the largest is placed first
  EXPECT_EQ(at[0], 0u);
  EXPECT_EQ(at[1], 1024u);  // behind low, which lives with it
  EXPECT_EQ(at[3], 0u);     // low is gone: the gap before high
  EXPECT_EQ(total_bytes_, 2048u);
}

TEST_F(MemoryPlanTest, SaysWhatIsAliveAtTheFullestOperation) {
  const Tensor kept = memory_.reserve("kept", DType::kU8, {300}), gone = memory_.reserve("gone", DType::kU8, {5000});
  const Tensor large = memory_.reserve("large", DType::kU8, {5000}), out = memory_.reserve("out", DType::kU8, {100});
  write(kept);
  write(gone);
  write(large);
  operation({large, kept}, {out});  // entry 3
  read(out);
  const MemoryPlan planned = plan();
  EXPECT_EQ(planned.peak_entry, 3u);
  EXPECT_EQ(planned.peak_bytes, aligned(5000) + aligned(300) + aligned(100));
  EXPECT_EQ(planned.size_bytes, planned.peak_bytes);
  std::vector<std::pair<std::string, std::size_t>> alive;
  for (const MemoryBlock* block : planned.at_peak()) alive.emplace_back(block->name, block->size_bytes);
  EXPECT_EQ(alive, (std::vector<std::pair<std::string, std::size_t>>{{"large", 5000}, {"kept", 300}, {"out", 100}}));
}

TEST_F(MemoryPlanTest, UnusedBlocksTakePartWithoutALife) {
  const Tensor used = block(256);
  block(5000);
  write(used);
  const MemoryPlan planned = plan();
  EXPECT_FALSE(planned.blocks[0].lives.empty());
  EXPECT_TRUE(planned.blocks[1].lives.empty());
  EXPECT_EQ(planned.blocks[0].offset_bytes, 0u);
  EXPECT_EQ(planned.size_bytes, aligned(5000));  // yet large enough to be a valid tensor
  EXPECT_EQ(planned.peak_bytes, 256u);
}

TEST_F(MemoryPlanTest, OtherArenasAndEmptyTensorsDoNotMatter) {
  Arena weights("weights", MemoryKind::kDevice);
  const Tensor weight = Tensor::reserve(weights, DType::kU8, {100000});
  const Tensor empty = block(0), a = block(256);
  write(weight);
  write(empty);
  write(a);
  const MemoryPlan planned = plan();
  EXPECT_TRUE(planned.blocks[0].lives.empty());
  EXPECT_EQ(planned.size_bytes, 256u);
}

TEST_F(MemoryPlanTest, EmptyPlanNeedsNothing) {
  EXPECT_TRUE(offsets().empty());
  EXPECT_EQ(total_bytes_, 0u);
  EXPECT_TRUE(plan().at_peak().empty());
}

TEST_F(MemoryPlanTest, SecondPassGetsThePlannedOffsets) {
  const auto reserve = [](ActivationMemory& memory) {
    return std::vector<Tensor>{memory.reserve("h0.in", DType::kF32, {4, 16}),
                               memory.reserve("h0.out", DType::kBF16, {64}),
                               memory.reserve("h1.in", DType::kF32, {4, 16})};
  };
  for (const Tensor& tensor : reserve(memory_)) write(tensor);
  const MemoryPlan planned = plan();

  Arena real("activations", MemoryKind::kDevice);
  real.reserve(planned.size_bytes);
  ActivationMemory second(real, planned.blocks);
  const auto tensors = reserve(second);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(&tensors[i].arena(), &real);
    EXPECT_EQ(tensors[i].offset_bytes(), planned.blocks[i].offset_bytes);
  }
  EXPECT_EQ(tensors[0].describe(), "f32[4, 16]");
  EXPECT_EQ(tensors[1].describe(), "bf16[64]");
  EXPECT_EQ(second.blocks().size(), 3u);
}

TEST_F(MemoryPlanTest, SecondPassMustRepeatTheFirst) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  memory_.reserve("a", DType::kF32, {16});
  memory_.reserve("b", DType::kF32, {16});
  const MemoryPlan planned = plan();
  Arena real("activations", MemoryKind::kDevice);
  const auto second_pass = [&](auto reserve) {
    ActivationMemory second(real, planned.blocks);
    reserve(second);
  };
  const std::string differs = "differs from the planning pass";
  EXPECT_DEATH(second_pass([](auto& memory) { memory.reserve("b", DType::kF32, {16}); }), "'b' " + differs);
  EXPECT_DEATH(second_pass([](auto& memory) { memory.reserve("a", DType::kF32, {17}); }), "'a' " + differs);
  EXPECT_DEATH(second_pass([](auto& memory) { memory.reserve("a", DType::kBF16, {16}); }), "'a' " + differs);
  EXPECT_DEATH(second_pass([](auto& memory) {
                 memory.reserve("a", DType::kF32, {16});
                 memory.reserve("b", DType::kF32, {16});
                 memory.reserve("c", DType::kF32, {16});
               }),
               "'c' " + differs);
}

TEST_F(MemoryPlanTest, AccessPastItsBlockIsAProgrammerError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  block(256);
  block(256);
  write(Tensor(planning_, 128, DType::kU8, {256}));
  EXPECT_DEATH(plan(), "an access reaches past 'block'");
}

TEST_F(MemoryPlanTest, AccessOutsideEveryBlockIsAProgrammerError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  write(Tensor(planning_, 0, DType::kU8, {16}));
  EXPECT_DEATH(plan(), "an access of the planning arena lies in no block");
}

// A random step of several streams. Every hazard within a block is covered, by stream order or by a wait. Steps are
// joined at their end, or each waits for the one before, or every block has a stream of its own and nothing orders
// them.
class RandomStep {
 public:
  struct Call {
    enum class Kind { kLaunch, kRecord, kWait } kind;
    std::size_t stream;
    std::size_t event = 0;
    struct Range {
      std::size_t block;
      std::int64_t begin, size;
    };
    std::vector<Range> reads = {}, writes = {};
  };

  explicit RandomStep(std::mt19937_64& random) : random_(random) {
    streams_ = 1 + below(3);
    for (std::size_t left = 3 + below(14); left > 0; --left) {
      sizes_.push_back(static_cast<std::int64_t>(1 + below(2000)));
    }
    uses_.resize(sizes_.size());
    waited_.assign(streams_, std::vector<std::size_t>(streams_, 0));
    launched_.assign(streams_, 0);
    enum Steps { kJoinedAtTheEnd, kWaitedForInTheNext, kApart };
    const Steps steps = below(2) == 0 ? kJoinedAtTheEnd : below(2) == 0 ? kWaitedForInTheNext : kApart;
    stays_at_home_ = steps == kApart;
    const std::size_t ends = events_;
    events_ += streams_;
    const auto wait_for_ends = [&] {
      for (std::size_t to = 0; to < streams_; ++to) {
        for (std::size_t from = 0; from < streams_; ++from) {
          calls_.push_back({.kind = Call::Kind::kWait, .stream = to, .event = ends + from});
        }
      }
    };
    if (steps == kWaitedForInTheNext) wait_for_ends();
    const std::size_t launches = 5 + below(60), window = 1 + below(6);
    for (std::size_t i = 0; i < launches; ++i) {
      if (below(3) == 0) order(below(streams_), below(streams_));
      launch(below(streams_), i * sizes_.size() / launches, window);
    }
    for (std::size_t from = 0; from < streams_; ++from) {
      calls_.push_back({.kind = Call::Kind::kRecord, .stream = from, .event = ends + from});
    }
    if (steps == kJoinedAtTheEnd) wait_for_ends();
  }

  // Reserves what run() uses.
  std::vector<Tensor> reserve(ActivationMemory& memory) const {
    std::vector<Tensor> out;
    for (const std::int64_t size : sizes_) out.push_back(memory.reserve("block", DType::kU8, {size}));
    return out;
  }

  // Runs the step `repetitions` times. Operations write what depends on all that they read, and tell it.
  std::vector<std::uint64_t> run(Device& device, const std::vector<Tensor>& blocks, std::size_t repetitions) const {
    std::vector<std::unique_ptr<Stream>> streams;
    std::vector<Event> events;
    for (std::size_t i = 0; i < streams_; ++i) streams.push_back(device.make_stream("s", StreamPriority::kNormal));
    for (std::size_t i = 0; i < events_; ++i) events.push_back(device.make_event("e"));
    std::vector<std::uint64_t> told(repetitions * calls_.size());
    const auto tensors = [&](const std::vector<Call::Range>& ranges) {
      std::vector<Tensor> out;
      for (const Call::Range& range : ranges) out.push_back(blocks[range.block].flat(range.begin, range.size));
      return out;
    };
    for (std::size_t number = 0; number < told.size(); ++number) {
      const Call& call = calls_[number % calls_.size()];
      Stream& stream = *streams[call.stream];
      if (call.kind == Call::Kind::kRecord) stream.record(events[call.event]);
      if (call.kind == Call::Kind::kWait) stream.wait(events[call.event], {"test", Hazard::kReadAfterWrite});
      if (call.kind != Call::Kind::kLaunch) continue;
      const std::vector<Tensor> reads = tensors(call.reads), writes = tensors(call.writes);
      stream.launch({.label = {"f"}, .kind = "test", .reads = reads, .writes = writes},
                    [reads, writes, number, &tell = told[number]](NativeStream) {
                      std::uint64_t hash = number;
                      const auto mix = [&hash](std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3 + 1; };
                      for (const Tensor& from : reads) {
                        for (std::int64_t i = 0; i < from.elems(); ++i) mix(cpu::data<std::uint8_t>(from)[i]);
                      }
                      tell = hash;
                      for (const Tensor& to : writes) {
                        for (std::int64_t i = 0; i < to.elems(); ++i) {
                          mix(static_cast<std::uint64_t>(i));
                          cpu::data<std::uint8_t>(to)[i] = static_cast<std::uint8_t>(hash >> 32);
                        }
                      }
                    });
    }
    for (const auto& stream : streams) stream->synchronize();
    return told;
  }

  std::size_t streams() const { return streams_; }

 private:
  struct Use {
    std::size_t stream, number;
    bool writes;
  };

  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(random_() % bound); }

  void launch(std::size_t stream, std::size_t first, std::size_t window) {
    Call call{.kind = Call::Kind::kLaunch, .stream = stream};
    const auto some_block = [&] {
      const std::size_t block = std::min(sizes_.size() - 1, first + below(window));
      if (!stays_at_home_) return block;
      const std::size_t at_home = block / streams_ * streams_ + stream;
      return at_home < sizes_.size() ? at_home : stream;
    };
    const auto range_of = [&](std::size_t block, bool whole) -> Call::Range {
      const auto size = static_cast<std::size_t>(sizes_[block]);
      const std::size_t begin = whole ? 0 : below(size);
      return {block, static_cast<std::int64_t>(begin),
              static_cast<std::int64_t>(whole ? size : 1 + below(size - begin))};
    };
    for (std::size_t left = below(3); left > 0; --left) {
      const std::size_t block = some_block();
      if (!uses_[block].empty() || below(20) == 0) call.reads.push_back(range_of(block, below(2) == 0));
    }
    for (std::size_t left = below(3); left > 0; --left) {
      const std::size_t block = some_block();
      const bool apart = std::ranges::none_of(call.writes, [&](const auto& other) { return other.block == block; });
      if (apart) call.writes.push_back(range_of(block, below(8) != 0));
    }
    for (const Call::Range& range : call.reads) cover(stream, range.block, false);
    for (const Call::Range& range : call.writes) cover(stream, range.block, true);
    ++launched_[stream];
    for (const Call::Range& range : call.reads) uses_[range.block].push_back({stream, launched_[stream], false});
    for (const Call::Range& range : call.writes) uses_[range.block].push_back({stream, launched_[stream], true});
    calls_.push_back(std::move(call));
  }
  // Waits for the uses of a block that what comes next on `stream` must be behind.
  void cover(std::size_t stream, std::size_t block, bool writes) {
    for (const Use& use : uses_[block]) {
      if (use.stream == stream || waited_[stream][use.stream] >= use.number || (!writes && !use.writes)) continue;
      order(use.stream, stream);
    }
  }
  void order(std::size_t earlier, std::size_t later) {
    calls_.push_back({.kind = Call::Kind::kRecord, .stream = earlier, .event = events_});
    calls_.push_back({.kind = Call::Kind::kWait, .stream = later, .event = events_++});
    waited_[later][earlier] = launched_[earlier];
  }

  std::mt19937_64& random_;
  std::size_t streams_ = 0, events_ = 0;
  bool stays_at_home_ = false;       // each block is used by one stream
  std::vector<std::int64_t> sizes_;  // of blocks, in bytes
  std::vector<Call> calls_;
  std::vector<std::vector<Use>> uses_;            // of each block
  std::vector<std::vector<std::size_t>> waited_;  // [s][t]: s is behind so many of t
  std::vector<std::size_t> launched_;
};

// Random steps of up to three streams, planned and then run on the shared bytes: the order checker has nothing to
// report, and every operation of every step reads what it reads where each block has bytes of its own.
TEST(MemoryPlanProperty, SharingChangesNoValueAndLeavesNoHazard) {
  constexpr std::size_t kRepetitions = 3;
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::size_t shared_pairs = 0, shared_with_several_streams = 0, apart_in_time = 0;
  for (int program = 0; program < 300; ++program) {
    SCOPED_TRACE("program " + std::to_string(program));
    const RandomStep step(random);
    const auto cpu = make_cpu_device();
    Arena planning("planning", MemoryKind::kDevice);
    ActivationMemory apart(planning);
    const std::vector<Tensor> own_bytes = step.reserve(apart);
    PlanDevice plan;
    step.run(plan, own_bytes, 1);
    const MemoryPlan planned = plan_memory(apart.blocks(), planning, plan.recording());

    std::size_t sum_bytes = 0;
    for (std::size_t i = 0; i < planned.blocks.size(); ++i) {
      const MemoryBlock& block = planned.blocks[i];
      sum_bytes += aligned(block.size_bytes);
      ASSERT_EQ(block.offset_bytes % Arena::kAlignmentBytes, 0u);
      ASSERT_LE(block.offset_bytes + block.size_bytes, planned.size_bytes);
      for (std::size_t j = 0; j < i; ++j) {
        const MemoryBlock& other = planned.blocks[j];
        if (block.lives.empty() || other.lives.empty() || !overlap(block, other)) continue;
        ++shared_pairs;
        shared_with_several_streams += step.streams() > 1 ? 1 : 0;
      }
    }
    ASSERT_LE(planned.size_bytes, sum_bytes);
    ASSERT_GE(planned.size_bytes, planned.peak_bytes);
    apart_in_time += planned.size_bytes < sum_bytes ? 1 : 0;

    CheckedDevice checked(*cpu, CheckedDevice::Policy::kCollect);
    Arena real("activations", MemoryKind::kDevice);
    real.reserve(planned.size_bytes);
    ActivationMemory second(real, planned.blocks);
    const std::vector<Tensor> shared = step.reserve(second);
    planning.allocate(*cpu);
    real.allocate(checked);
    const auto expected = step.run(*cpu, own_bytes, kRepetitions);
    EXPECT_EQ(step.run(checked, shared, kRepetitions), expected);
    for (const OrderChecker::Report& report : checked.checker().reports()) ADD_FAILURE() << report.describe();
    if (HasFailure()) break;
  }
  EXPECT_GT(shared_pairs, 300u);
  EXPECT_GT(shared_with_several_streams, 100u);
  EXPECT_GT(apart_in_time, 100u);
}

}  // namespace
}  // namespace test
}  // namespace strake
