#include "runtime/device/recording.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "tests/runtime/device/three_stream_loop.h"

namespace strake::test {
namespace {

TEST(PlanDevice, RunsAndAllocatesNothing) {
  PlanDevice plan;
  EXPECT_EQ(plan.kind(), DeviceKind::kPlan);
  Arena arena("large", MemoryKind::kDevice);
  const Tensor huge = Tensor::reserve(arena, DType::kF32, {std::int64_t{1} << 40});
  arena.allocate(plan);
  EXPECT_EQ(plan.allocated_bytes(), 0u);

  const auto stream = plan.make_stream("compute", StreamPriority::kNormal);
  EXPECT_EQ(stream->index(), 0);
  EXPECT_EQ(&stream->device(), &plan);
  Event event = plan.make_event("done");
  stream->zero({"zero", Phase::kOptimizer}, huge);
  stream->launch({.label = {"never"}, .kind = "test", .reads = {}, .writes = {}},
                 [](NativeStream) { ADD_FAILURE() << "a plan runs nothing"; });
  stream->record(event);
  Mark mark = plan.make_mark("reached");
  stream->mark(mark);
  stream->synchronize();
  plan.synchronize(event);
  plan.host_wait(plan.ticket(event));
  plan.check();
  EXPECT_TRUE(plan.complete(event));
  EXPECT_TRUE(plan.complete(mark));
  EXPECT_EQ(plan.elapsed(mark, mark), Nanoseconds(0));
}

TEST(PlanDevice, PlansForAKindThatIsNotHere) {
  EXPECT_EQ(PlanDevice().target(), DeviceKind::kCpu);
  const PlanDevice plan(DeviceKind::kCuda);
  EXPECT_EQ(plan.kind(), DeviceKind::kPlan);
  EXPECT_EQ(plan.target(), DeviceKind::kCuda);
  EXPECT_EQ(plan.kernel_state(), nullptr);
}

TEST(PlanDevice, RecordsOperationsWithTheirAccessesAndCosts) {
  PlanDevice plan;
  const auto compute = plan.make_stream("compute", StreamPriority::kNormal);
  Arena arena("activations", MemoryKind::kDevice);
  arena.reserve(256);
  const Tensor in = Tensor::reserve(arena, DType::kBF16, {8, 16}), out = Tensor::reserve(arena, DType::kF32, {8});
  const std::array<Tensor, 2> reads{in, Tensor()};
  compute->launch(
      {.label = {"h0.mlp", Phase::kBackward}, .kind = "matmul", .reads = reads, .writes = {&out, 1}, .flops = 77}, {});
  compute->launch(
      {.label = {"all-reduce", Phase::kComm}, .kind = "all_reduce", .reads = {}, .writes = {}, .bytes = 1000}, {});
  compute->copy({"copy", Phase::kBackward}, in.flat(0, 8), in.flat(8, 8));

  const Recording& recording = plan.recording();
  ASSERT_EQ(recording.entries.size(), 3u);
  const RecordedEntry& entry = recording.entries[0];
  EXPECT_EQ(entry.kind, RecordedEntry::Kind::kOperation);
  EXPECT_EQ(entry.stream, 0);
  EXPECT_EQ(entry.name, "h0.mlp");
  EXPECT_EQ(entry.kernel, "matmul");
  EXPECT_EQ(entry.phase, Phase::kBackward);
  ASSERT_EQ(entry.reads.size(), 1u);  // the undefined one is none
  EXPECT_EQ(entry.reads[0].arena, &arena);
  EXPECT_EQ(entry.reads[0].arena_name, "activations");
  EXPECT_EQ(entry.reads[0].begin_bytes, 256u);
  EXPECT_EQ(entry.reads[0].end_bytes, 512u);
  ASSERT_EQ(entry.writes.size(), 1u);
  EXPECT_EQ(entry.writes[0].begin_bytes, 512u);
  EXPECT_EQ(entry.writes[0].end_bytes, 544u);
  EXPECT_EQ(entry.flops, 77);
  EXPECT_EQ(entry.bytes, 256 + 32);  // not given: what it touches
  EXPECT_EQ(recording.entries[1].bytes, 1000);
  EXPECT_EQ(recording.entries[2].kernel, "copy");

  EXPECT_EQ(recording.flops(), 77);
  EXPECT_EQ(recording.bytes(Phase::kBackward), 256 + 32 + 32);
  EXPECT_EQ(recording.bytes(Phase::kComm), 1000);
  EXPECT_EQ(recording.bytes(Phase::kForward), 0);
}

TEST(PlanDevice, RecordsTheScheduleOfAStep) {
  PlanDevice plan;
  ThreeStreamLoop loop(plan);
  loop.enqueue(1);
  std::string schedule;
  for (const RecordedEntry& entry : plan.recording().entries) {
    schedule += plan.recording().streams[static_cast<std::size_t>(entry.stream)] + ": ";
    switch (entry.kind) {
      case RecordedEntry::Kind::kOperation:
        schedule += entry.name;
        break;
      case RecordedEntry::Kind::kRecord:
        schedule += "record " + entry.name;
        break;
      case RecordedEntry::Kind::kWait:
        schedule += std::string(name_of(entry.hazard)) + " " + entry.name + ", " + entry.wait_site;
        break;
      case RecordedEntry::Kind::kMark:
        schedule += "mark " + entry.name;
        break;
    }
    schedule += "\n";
  }
  EXPECT_EQ(schedule,
            "copy: WAR slot 0 free, copy waits until the slot is free\n"
            "copy: h2d\n"
            "copy: record batch 0 ready\n"
            "compute: RAW batch 0 ready, compute waits for the batch\n"
            "compute: forward\n"
            "compute: record slot 0 free\n"
            "compute: forward with weights\n"
            "compute: backward\n"
            "compute: record gradients final\n"
            "comm: RAW gradients final, comm waits for the gradients\n"
            "comm: reduce\n"
            "comm: record gradients reduced\n"
            "compute: RAW gradients reduced, optimizer waits for the reduced gradients\n"
            "compute: optimizer\n");
}

TEST(Recording, EventsOfOneNameStayApart) {
  PlanDevice plan;
  const auto compute = plan.make_stream("compute", StreamPriority::kNormal);
  Event first = plan.make_event("ready"), second = plan.make_event("ready");
  compute->record(first);
  compute->record(second);
  compute->wait(first, {"wait", Hazard::kReadAfterWrite});
  compute->launch({.label = {"operation"}, .kind = "test", .reads = {}, .writes = {}}, {});
  std::vector<int> events;
  for (const RecordedEntry& entry : plan.recording().entries) events.push_back(entry.event);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_NE(events[0], events[1]);
  EXPECT_EQ(events[2], events[0]);
  EXPECT_EQ(events[3], -1) << "an operation has no event";
}

TEST(Recording, RecomputedOperationsAreNoPartOfTheFlops) {
  PlanDevice plan;
  const auto compute = plan.make_stream("compute", StreamPriority::kNormal);
  const auto product = [&](Label label, double flops) {
    compute->launch({.label = label, .kind = "matmul", .reads = {}, .writes = {}, .flops = flops}, {});
  };
  product({"fc", Phase::kForward}, 2e9);
  product({.name = "fc", .phase = Phase::kBackward, .recomputed = true}, 2e9);
  product({"fc", Phase::kBackward}, 4e9);
  const Recording& recording = plan.recording();
  EXPECT_FALSE(recording.entries[0].recomputed);
  EXPECT_TRUE(recording.entries[1].recomputed);
  EXPECT_EQ(recording.flops(), 6e9);
  EXPECT_EQ(recording.recomputed_flops(), 2e9);
  const std::string text = recording.describe();
  std::size_t said = 0;
  for (std::size_t at = text.find("MB  recomputed\n"); at != std::string::npos;
       at = text.find("MB  recomputed\n", at + 1))
    ++said;
  EXPECT_EQ(said, 1u) << text;
  EXPECT_NE(text.find("6.000 GFLOP"), std::string::npos) << text;
  EXPECT_NE(text.find("MB, and 2.000 GFLOP recomputed\n"), std::string::npos) << text;
}

TEST(Recording, MarksAreNeitherOperationsNorWaits) {
  PlanDevice plan;
  const auto compute = plan.make_stream("compute", StreamPriority::kNormal);
  Mark mark = plan.make_mark("backward ends");
  compute->mark(mark);
  ASSERT_EQ(plan.recording().entries.size(), 1u);
  EXPECT_EQ(plan.recording().entries[0].kind, RecordedEntry::Kind::kMark);
  const std::string text = plan.recording().describe();
  EXPECT_NE(text.find("compute   mark       backward ends\n"), std::string::npos) << text;
  EXPECT_NE(text.find("    0 operations    0 waits"), std::string::npos) << text;
}

TEST(Recording, DescriptionShowsWaitsWithTheirHazardAndTotals) {
  PlanDevice plan;
  ThreeStreamLoop loop(plan);
  loop.enqueue(2);
  const std::string text = plan.recording().describe();
  for (const std::string line : {
           "WAIT WAR   copy waits until the slot is free (event: slot 1 free)\n",
           "WAIT RAW   compute waits for the batch (event: batch 1 ready)\n",
           "WAIT RAW   comm waits for the gradients (event: gradients final)\n",
           "WAIT RAW   optimizer waits for the reduced gradients (event: gradients reduced)\n",
           "record     gradients final\n",
       }) {
    EXPECT_NE(text.find(line), std::string::npos) << line << "is not in\n" << text;
  }
  const auto totals = [&text](const std::string& stream) {
    const auto begin = text.find("stream " + stream);
    return begin == std::string::npos ? std::string() : text.substr(begin, text.find('\n', begin) - begin);
  };
  EXPECT_NE(totals("copy").find("2 operations    2 waits"), std::string::npos) << text;
  EXPECT_NE(totals("compute").find("8 operations    4 waits"), std::string::npos) << text;
  EXPECT_NE(totals("comm").find("2 operations    2 waits"), std::string::npos) << text;
}

}  // namespace
}  // namespace strake::test
