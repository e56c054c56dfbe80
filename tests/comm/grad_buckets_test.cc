#include "comm/grad_buckets.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/threads/threads_world.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/order_checker.h"
#include "runtime/device/recording.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gate.h"
#include "tests/support/rank_threads.h"
#include "tests/support/watchdog.h"

namespace strake::comm {
namespace {

ParamLayout eight_params() {
  std::vector<ParamSpec> specs;
  for (int i = 0; i < 8; ++i) {
    ParamSpec spec;
    spec.name = "p" + std::to_string(i);
    spec.global_shape = {100 + 61 * i};
    spec.final_at_end = i == 7;
    specs.push_back(spec);
  }
  return ParamLayout(specs);
}

// Four buckets of two parameters each.
BucketPlan pairs(const ParamLayout& layout) {
  BucketPlan plan{.buckets = {}, .wire = DType::kF32};
  for (int i = 0; i < 8; i += 2) {
    const std::int64_t end = i + 2 < 8 ? layout.offset_elems(static_cast<ParamId>(i + 2)) : layout.total_elems();
    plan.buckets.push_back(
        {layout.offset_elems(static_cast<ParamId>(i)), end, static_cast<ParamId>(i), static_cast<ParamId>(i + 1)});
  }
  return plan;
}

// One rank with a compute and a communication stream. Backward writes f(rank, step, element) into each
// parameter's gradient in turn.
// A plan in bf16 makes them travel so.
class Trainee {
 public:
  Trainee(Device& device, std::unique_ptr<Communicator> communicator, BucketPlan plan, Overlap overlap)
      : layout_(eight_params()),
        arena_("gradients", MemoryKind::kDevice),
        gradients_(Tensor::reserve(arena_, DType::kF32, {layout_.total_elems()})),
        communicator_(std::move(communicator)),
        compute_(device.make_stream("compute", StreamPriority::kNormal)),
        comm_(device.make_stream("comm", StreamPriority::kHigh)),
        wire_(plan.wire == DType::kBF16 ? Wire{Tensor::reserve(arena_, DType::kBF16, {plan.largest_elems()}), convert}
                                        : Wire{}),
        buckets_(device, std::move(plan), layout_, gradients_, *communicator_, *compute_, *comm_, overlap, wire_) {
    if (device.kind() == DeviceKind::kCpu) arena_.allocate(device);
  }

  void backward_of(int param, int step) {
    const Tensor view = layout_.view(gradients_, static_cast<ParamId>(param));
    const int rank = communicator_->rank();
    compute_->launch({.label = {"backward of p" + std::to_string(param), Phase::kBackward},
                      .kind = "write",
                      .reads = {},
                      .writes = {&view, 1}},
                     [view, rank, step](NativeStream) {
                       float* values = cpu::data<float>(view);
                       for (std::int64_t i = 0; i < view.elems(); ++i) values[i] = addend(rank, step, i);
                     });
  }
  // As a step does it: the optimizer may read what reduced() promises, then the next backward may write.
  void wait_for_reduced() {
    compute_->wait(buckets_.reduced(), {"optimizer waits for reduced gradients", Hazard::kReadAfterWrite});
  }
  void step(int number) {
    buckets_.use_slot(number % GradBuckets::kSlots);
    for (int param = 0; param < 8; ++param) {
      backward_of(param, number);
      buckets_.ready(static_cast<ParamId>(param));
    }
    wait_for_reduced();
    compute_->launch(
        {.label = {"optimizer", Phase::kOptimizer}, .kind = "read", .reads = {&gradients_, 1}, .writes = {}},
        [](NativeStream) {});
  }
  std::vector<float> sums() {
    compute_->synchronize();
    comm_->synchronize();
    const float* values = cpu::data<float>(gradients_);
    return std::vector<float>(values, values + gradients_.elems());
  }
  // What sums() must be: rank by rank; alignment gaps stay zero.
  static std::vector<float> expected(int size, int step) {
    const ParamLayout layout = eight_params();
    std::vector<float> sums(static_cast<std::size_t>(layout.total_elems()));
    for (std::size_t p = 0; p < layout.size(); ++p) {
      const auto id = static_cast<ParamId>(p);
      for (std::int64_t i = 0; i < layout.spec(id).elems(); ++i) {
        float sum = addend(0, step, i);
        for (int rank = 1; rank < size; ++rank) sum += addend(rank, step, i);
        sums[static_cast<std::size_t>(layout.offset_elems(id) + i)] = sum;
      }
    }
    return sums;
  }

  Stream& compute() { return *compute_; }
  GradBuckets& buckets() { return buckets_; }

 private:
  static void convert(Stream& stream, Label label, const Tensor& dst, const Tensor& src) {
    stream.launch({.label = label, .kind = "convert", .reads = {&src, 1}, .writes = {&dst, 1}},
                  [dst, src](NativeStream) {
                    for (std::int64_t i = 0; i < dst.elems(); ++i) {
                      if (dst.dtype() == DType::kBF16) {
                        cpu::data<BFloat16>(dst)[i] = to_bfloat16(cpu::data<float>(src)[i]);
                      } else {
                        cpu::data<float>(dst)[i] = to_float(cpu::data<BFloat16>(src)[i]);
                      }
                    }
                  });
  }
  static float addend(int rank, int step, std::int64_t i) {
    return (1.0f + static_cast<float>((i * 37 + step) % 101) / 128) * static_cast<float>(1 << ((rank * 7 + i) % 13));
  }

  ParamLayout layout_;
  Arena arena_;
  Tensor gradients_;
  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<Stream> compute_;
  std::unique_ptr<Stream> comm_;
  Wire wire_;
  GradBuckets buckets_;
};

std::vector<std::string> described(const Recording& recording) {
  std::vector<std::string> lines;
  for (const RecordedEntry& entry : recording.entries) {
    const std::string stream = recording.streams[static_cast<std::size_t>(entry.stream)] + ": ";
    switch (entry.kind) {
      case RecordedEntry::Kind::kOperation:
        lines.push_back(stream + entry.name);
        break;
      case RecordedEntry::Kind::kRecord:
        lines.push_back(stream + "record " + entry.name);
        break;
      case RecordedEntry::Kind::kWait:
        lines.push_back(stream + "wait " + entry.name);
        break;
      case RecordedEntry::Kind::kMark:
        lines.push_back(stream + "mark " + entry.name);
        break;
    }
  }
  return lines;
}

std::vector<std::string> launch_of(int bucket) {
  const std::string name = "bucket " + std::to_string(bucket);
  return {"compute: record " + name + " gradients final", "comm: wait " + name + " gradients final",
          "comm: mark " + name + " begin, slot 0", "comm: " + name + " all-reduce",
          "comm: mark " + name + " end, slot 0"};
}

std::string ready_of(int bucket) { return "compute: mark bucket " + std::to_string(bucket) + " ready, slot 0"; }

constexpr std::array kReduced{"comm: record gradients reduced", "compute: wait gradients reduced"};

// Records a step of one rank of a world of `ranks`.
std::vector<std::string> schedule(Overlap overlap, int ranks) {
  PlanDevice plan;
  ThreadsWorld world(ranks);
  Trainee rank(plan, world.make_communicator(0), pairs(eight_params()), overlap);
  rank.step(0);
  return described(plan.recording());
}

TEST(GradBuckets, LaunchesEachBucketBehindItsLastGradient) {
  std::vector<std::string> expected;
  for (int bucket = 0; bucket < 4; ++bucket) {
    expected.push_back("compute: backward of p" + std::to_string(2 * bucket));
    expected.push_back("compute: backward of p" + std::to_string(2 * bucket + 1));
    expected.push_back(ready_of(bucket));
    for (const std::string& line : launch_of(bucket)) expected.push_back(line);
  }
  for (const char* line : kReduced) expected.emplace_back(line);
  expected.push_back("compute: optimizer");
  EXPECT_EQ(schedule(Overlap::kOn, 2), expected);
  EXPECT_EQ(schedule(Overlap::kOn, 1), expected) << "one rank's schedule looks the same";
}

TEST(GradBuckets, WithoutOverlapNothingIsEnqueuedBeforeTheEnd) {
  std::vector<std::string> expected;
  for (int param = 0; param < 8; ++param) {
    expected.push_back("compute: backward of p" + std::to_string(param));
    if (param % 2 == 1) expected.push_back(ready_of(param / 2));
  }
  for (int bucket = 0; bucket < 4; ++bucket) {
    for (const std::string& line : launch_of(bucket)) expected.push_back(line);
  }
  for (const char* line : kReduced) expected.emplace_back(line);
  expected.push_back("compute: optimizer");
  EXPECT_EQ(schedule(Overlap::kOff, 2), expected);
}

TEST(GradBuckets, ABucketIsReducedWhileBackwardIsHeld) {
  const test::Watchdog watchdog("all-reduce of bucket 0 beside backward");
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    test::Gate gate;
    const auto device = make_cpu_device();
    const auto control = world.make_control(me);
    Trainee rank(*device, world.make_communicator(me), pairs(eight_params()), Overlap::kOn);
    GradBuckets& buckets = rank.buckets();
    buckets.use_slot(2);
    for (int param = 0; param < 8; ++param) {
      // Backward stands still before the last gradient of bucket 1.
      if (param == 3) {
        rank.compute().launch({.label = {"held", Phase::kBackward}, .kind = "gate", .reads = {}, .writes = {}},
                              gate.body());
      }
      rank.backward_of(param, 0);
      buckets.ready(static_cast<ParamId>(param));
    }
    const Event& reduced = buckets.reduced();
    const std::vector<GradBuckets::Timing> timings = buckets.timings(2);
    ASSERT_EQ(timings.size(), 4u);
    EXPECT_TRUE(test::wait_until([&] { return device->complete(*timings[0].end); }))
        << "bucket 0 was not reduced while backward was held";
    EXPECT_FALSE(device->complete(*timings[1].begin)) << "bucket 1 did not wait for its gradients";
    EXPECT_TRUE(device->complete(*timings[0].ready));
    EXPECT_FALSE(device->complete(*timings[1].ready)) << "bucket 1 was ready before its gradients";
    EXPECT_FALSE(device->complete(reduced));
    control->barrier();  // no rank may be let on before both have looked
    gate.open();
    EXPECT_EQ(rank.sums(), Trainee::expected(2, 0));
    EXPECT_TRUE(device->complete(reduced));
    EXPECT_TRUE(device->complete(*timings[3].end));
    for (std::size_t i = 0; i + 1 < timings.size(); ++i) {
      EXPECT_GE(device->elapsed(*timings[i].ready, *timings[i].begin).count(), 0);
      EXPECT_GE(device->elapsed(*timings[i].begin, *timings[i].end).count(), 0);
      EXPECT_GE(device->elapsed(*timings[i].end, *timings[i + 1].begin).count(), 0);
    }
  });
}

TEST(GradBuckets, WithoutOverlapNoBucketStartsWhileBackwardIsHeld) {
  const test::Watchdog watchdog("all-reduce of all buckets behind backward");
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    test::Gate gate;
    const auto device = make_cpu_device();
    const auto control = world.make_control(me);
    Trainee rank(*device, world.make_communicator(me), pairs(eight_params()), Overlap::kOff);
    for (int param = 0; param < 8; ++param) {
      if (param == 7) {
        rank.compute().launch({.label = {"held", Phase::kBackward}, .kind = "gate", .reads = {}, .writes = {}},
                              gate.body());
      }
      rank.backward_of(param, 0);
      rank.buckets().ready(static_cast<ParamId>(param));
    }
    rank.buckets().reduced();
    EXPECT_TRUE(test::wait_until([&] { return gate.reached(); }));
    const std::vector<GradBuckets::Timing> timings = rank.buckets().timings(0);
    EXPECT_TRUE(device->complete(*timings[2].ready)) << "gradients are final when they are, overlap or not";
    EXPECT_FALSE(device->complete(*timings[3].ready));
    EXPECT_FALSE(device->complete(*timings[0].begin));
    control->barrier();
    gate.open();
    EXPECT_EQ(rank.sums(), Trainee::expected(2, 0));
  });
}

TEST(GradBuckets, OverlapBucketSizesAndDelaysChangeNoBit) {
  constexpr std::uint64_t kSeed = 99;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  for (int size = 1; size <= 4; ++size) {
    for (const std::int64_t bucket_bytes : {1, 3000, 1 << 20}) {
      for (const Overlap overlap : {Overlap::kOn, Overlap::kOff}) {
        const test::Watchdog watchdog("three steps of bucketed all-reduce");
        ThreadsWorld world(size);
        test::run_ranks(world, [&](int me) {
          const auto cpu = make_cpu_device();
          CheckedDevice checked(*cpu, CheckedDevice::Policy::kCollect);
          test::FaultyDevice device(checked, kSeed + static_cast<std::uint64_t>(me));
          device.faults().delays = {{.random = std::chrono::microseconds(300)}};
          Trainee rank(device, world.make_communicator(me), plan_buckets(eight_params(), DType::kF32, bucket_bytes),
                       overlap);
          for (int step = 0; step < 3; ++step) rank.step(step);
          EXPECT_EQ(rank.sums(), Trainee::expected(size, 2)) << size << " ranks, " << bucket_bytes << " bytes";
          for (const OrderChecker::Report& report : checked.checker().reports()) ADD_FAILURE() << report.describe();
        });
      }
    }
  }
}

TEST(GradBuckets, AWireOfAnotherTypeRoundsEachAddend) {
  std::vector<std::vector<float>> sums;
  for (const std::int64_t bucket_bytes : {1, 3000, 1 << 20}) {
    for (const Overlap overlap : {Overlap::kOn, Overlap::kOff}) {
      ThreadsWorld world(3);
      test::run_ranks(world, [&](int me) {
        const auto cpu = make_cpu_device();
        CheckedDevice device(*cpu, CheckedDevice::Policy::kCollect);
        Trainee rank(device, world.make_communicator(me), plan_buckets(eight_params(), DType::kBF16, bucket_bytes),
                     overlap);
        for (int step = 0; step < 2; ++step) rank.step(step);
        const std::vector<float> mine = rank.sums();
        if (me == 0) sums.push_back(mine);
        for (const OrderChecker::Report& report : device.checker().reports()) ADD_FAILURE() << report.describe();
      });
    }
  }
  const std::vector<float> exact = Trainee::expected(3, 1);
  std::size_t rounded = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    EXPECT_NEAR(sums[0][i], exact[i], std::abs(exact[i]) / 128) << i;
    EXPECT_EQ(sums[0][i], to_float(to_bfloat16(sums[0][i]))) << i;
    rounded += sums[0][i] != exact[i];
  }
  EXPECT_GT(rounded, exact.size() / 4);
  for (const std::vector<float>& other : sums) EXPECT_EQ(other, sums[0]);
}

TEST(GradBuckets, EveryWaitIsLoadBearing) {
  for (const Overlap overlap : {Overlap::kOn, Overlap::kOff}) {
    std::map<std::string, std::int64_t> sites;
    {
      PlanDevice plan;
      test::FaultyDevice device(plan);
      ThreadsWorld world(2);
      Trainee rank(device, world.make_communicator(0), pairs(eight_params()), overlap);
      for (int step = 0; step < 4; ++step) rank.step(step);
      sites = device.waits_passed();
    }
    ASSERT_TRUE(sites.contains("communication waits for gradients"));
    EXPECT_EQ(sites.at("communication waits for gradients"), 16);
    for (const auto& [site, passes] : sites) {
      PlanDevice plan;
      CheckedDevice checked(plan, CheckedDevice::Policy::kCollect);
      test::FaultyDevice device(checked);
      device.faults().wait_to_drop = site;
      ThreadsWorld world(2);
      Trainee rank(device, world.make_communicator(0), pairs(eight_params()), overlap);
      for (int step = 0; step < 4; ++step) rank.step(step);
      EXPECT_FALSE(checked.checker().reports().empty()) << "nobody needs: " << site;
    }
  }
}

class GradBucketsDeathTest : public testing::Test {
 protected:
  PlanDevice plan_;
  ThreadsWorld world_{1};
  Trainee rank_{plan_, world_.make_communicator(0), pairs(eight_params()), Overlap::kOn};
};

TEST_F(GradBucketsDeathTest, ReadinessIsInLayoutOrder) {
  rank_.buckets().ready(ParamId{0});
  EXPECT_DEATH(rank_.buckets().ready(ParamId{2}), "parameter 2 is ready where parameter 1 was expected");
  EXPECT_DEATH(rank_.buckets().ready(ParamId{0}), "parameter 0 is ready where parameter 1 was expected");
}

TEST_F(GradBucketsDeathTest, EveryGradientMustBeReady) {
  for (int param = 0; param < 7; ++param) rank_.buckets().ready(static_cast<ParamId>(param));
  EXPECT_DEATH(rank_.buckets().reduced(), "only 7 of 8 gradients are ready");
  rank_.buckets().ready(ParamId{7});
  EXPECT_DEATH(rank_.buckets().ready(ParamId{8}), "all gradients of this step were ready");
}

TEST_F(GradBucketsDeathTest, SlotsChangeBetweenStepsOnly) {
  EXPECT_DEATH(rank_.buckets().use_slot(GradBuckets::kSlots), "no such slot");
  rank_.buckets().ready(ParamId{0});
  EXPECT_DEATH(rank_.buckets().use_slot(1), "between steps");
}

TEST_F(GradBucketsDeathTest, ThePlanMustFitTheLayout) {
  BucketPlan plan = pairs(eight_params());
  plan.buckets.pop_back();
  EXPECT_DEATH(Trainee(plan_, world_.make_communicator(0), plan, Overlap::kOn), "another layout");
}

}  // namespace
}  // namespace strake::comm
