// What a fault that was planted does to `strake verify-overlap`: the variant fails, and it is said what differs first.
#include "launch/verify/verify_overlap.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <map>
#include <utility>

#include "comm/forwarding_communicator.h"
#include "launch/job/random_tokens.h"
#include "runtime/base/error.h"
#include "tests/integration/small_job.h"
#include "tests/support/faulty_device.h"
#include "tests/support/watchdog.h"

namespace strake::launch {
namespace {

class VerifyOverlap : public testing::Test {
 protected:
  // Of two ranks, but for `ranks`: the cell of the config alone.
  VerifyReport verify(const std::vector<std::string>& only, const VerifyHooks& hooks = {}, int ranks = 2) {
    VerifyJob job;
    job.config = job_.config(ranks, 1, 2, kSteps);
    job.config.comm.bucket_mib = 0.008;
    job.config.comm.split_embedding = SplitTable::kNever;  // gathers are of weights alone
    job.cells = variants_to_verify(job.config, ranks, only);
    job.cells.resize(1);
    job.steps = kSteps;
    job.hooks = hooks;
    const test::Watchdog watchdog("ranks that are compared");
    return verify_on_threads(job, ranks);
  }
  static std::map<std::string, VariantResult> by_name(const VerifyReport& report) {
    std::map<std::string, VariantResult> out;
    for (const VariantResult& result : report.cells.at(0).variants) out.emplace(result.variant.name, result);
    return out;
  }
  // Of `variant` alone, on rank 0.
  static VerifyHooks drops(const std::string& variant, const std::string& wait) {
    VerifyHooks hooks;
    hooks.wrap_device = [=](Device& device, const Variant& each, int rank) -> std::unique_ptr<Device> {
      if (each.name != variant || rank != 0) return nullptr;
      auto faulty = std::make_unique<test::FaultyDevice>(device);
      faulty->faults().wait_to_drop = wait;
      faulty->faults().drop_from_pass = 2;
      return faulty;
    };
    return hooks;
  }

  static constexpr std::int64_t kSteps = 4;
  test::SmallJob job_;
};

TEST_F(VerifyOverlap, PassesWhereNothingIsWrong) {
  const VerifyReport report = verify({}, {}, 3);
  EXPECT_TRUE(report.passed()) << report.first_failure();
  const CellResult& cell = report.cells.at(0);
  EXPECT_EQ(report.count(Verdict::kReference), 1);
  EXPECT_EQ(report.count(Verdict::kPass),
            static_cast<std::int64_t>(variants_of(job_.config(3, 1, 2, 1), 3).size()) - 1);
  EXPECT_EQ(cell.variants.front().buckets, 2);
  EXPECT_GT(cell.variants[1].buckets, 20);
  ASSERT_EQ(cell.steps.size(), static_cast<std::size_t>(kSteps));
  for (std::size_t step = 1; step < kSteps; ++step) {
    EXPECT_NE(cell.steps[step].loss, cell.steps[step - 1].loss) << "nothing was trained";
  }
}

TEST_F(VerifyOverlap, IsThatOfARunWithoutIt) {
  Config config = with(job_.config(2, 1, 2, kSteps), Variant{"serial", false, kOneBucketMib});
  config.comm.split_embedding = SplitTable::kNever;
  const auto ranks = test::run_threads(config, 2, [](int, const test::RunRank& run) {
    const auto device = make_cpu_device();
    run({.device = device.get()});
  });
  const VerifyReport report = verify({"serial, one bucket"});
  for (std::size_t step = 0; step < kSteps; ++step) {
    EXPECT_EQ(report.cells[0].steps[step].loss, ranks[0].steps[step].loss);
    EXPECT_EQ(report.cells[0].steps[step].grad_norm, ranks[0].steps[step].grad_norm);
  }
}

#ifndef STRAKE_TSAN  // the races are real
TEST_F(VerifyOverlap, AMissingWaitIsNamedByTheOrderChecker) {
  for (const auto& [variant, wait, operation] :
       {std::tuple("overlapped, a bucket a parameter", "communication waits for gradients", "all-reduce"),
        std::tuple("overlapped, a bucket a parameter", "compute waits for reduced gradients", "gradient"),
        std::tuple("compute late, sharded", "compute waits for gathered weights", "")}) {
    SCOPED_TRACE(wait);
    const VerifyReport report = verify({variant, "input late"}, drops(variant, wait));
    EXPECT_FALSE(report.passed());
    for (const auto& [name, result] : by_name(report)) {
      if (name != variant) {
        EXPECT_NE(result.verdict, Verdict::kFail) << describe(result);
        continue;
      }
      EXPECT_EQ(result.verdict, Verdict::kFail);
      EXPECT_GT(result.order_reports, 0);
      ASSERT_FALSE(result.first_reports.empty());
      EXPECT_EQ(result.first_reports.front().rank, 0);
      EXPECT_NE(describe(result).find("is not ordered"), std::string::npos) << describe(result);
      EXPECT_NE(describe(result).find(operation), std::string::npos) << describe(result);
    }
  }
}

// The order checker is no part of the first variant's excuse: a fault there is a failure too.
TEST_F(VerifyOverlap, TheReferenceFailsByTheOrderChecker) {
  const VerifyReport report =
      verify({"serial, one bucket"}, drops("serial, one bucket", "compute waits for reduced gradients"));
  EXPECT_EQ(by_name(report).at("serial, one bucket").verdict, Verdict::kFail);
}
#endif

// Sums large messages in the order of ranks N-1..0, as a library might that chooses its algorithm by size.
class OrderBySize final : public comm::ForwardingCommunicator {
 public:
  OrderBySize(std::unique_ptr<comm::Communicator> inner, std::unique_ptr<OrderBySize> reversed)
      : ForwardingCommunicator(std::move(inner)), reversed_(std::move(reversed)) {}

  static std::unique_ptr<comm::Communicator> around(std::unique_ptr<comm::Communicator> inner) {
    auto reversed = std::make_unique<OrderBySize>(inner->split(0, -inner->rank()), nullptr);
    return std::make_unique<OrderBySize>(std::move(inner), std::move(reversed));
  }

 protected:
  Body all_reduce_body(const std::string& name, const Tensor& data) override {
    constexpr std::int64_t kLarge = 4096;
    if (reversed_ != nullptr && data.elems() >= kLarge) return reversed_->all_reduce_body(name, data);
    return ForwardingCommunicator::all_reduce_body(name, data);
  }

 private:
  std::unique_ptr<OrderBySize> reversed_;
};

TEST_F(VerifyOverlap, AnotherOrderOfSummingIsTheFirstDifference) {
  VerifyHooks hooks;
  hooks.wrap_communicator = OrderBySize::around;
  const VerifyReport report =
      verify({"overlapped, one bucket", "overlapped, a bucket a parameter", "recompute block"}, hooks, 3);
  const auto results = by_name(report);
  EXPECT_EQ(results.at("overlapped, one bucket").verdict, Verdict::kPass) << "summed as the reference";
  const VariantResult& result = results.at("overlapped, a bucket a parameter");
  EXPECT_EQ(result.verdict, Verdict::kFail);
  EXPECT_EQ(result.order_reports, 0);
  ASSERT_TRUE(result.difference.has_value());
  EXPECT_LT(result.difference->step, kSteps) << "found where it first shows, not behind the last step";
  EXPECT_NE(result.difference->value, result.difference->expected);
  EXPECT_EQ(result.reference, "serial, one bucket");
  EXPECT_NE(describe(result).find("differs from 'serial, one bucket' first in " + result.difference->describe()),
            std::string::npos)
      << describe(result);
  EXPECT_NE(report.first_failure().find("overlapped, a bucket a parameter"), std::string::npos);
}

// A gather that leaves one element of a rank's copy wrong behind the last step, which no loss tells any more.
class LastGatherIsWrong final : public comm::ForwardingCommunicator {
 public:
  LastGatherIsWrong(std::unique_ptr<comm::Communicator> inner, std::int64_t gathers)
      : ForwardingCommunicator(std::move(inner)), left_(gathers) {}

 protected:
  Body all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) override {
    Body body = ForwardingCommunicator::all_gather_body(name, out, in);
    if (--left_ != 0 || rank() != 1) return body;
    return [body = std::move(body), out](NativeStream native) {
      body(native);
      reinterpret_cast<float*>(out.address().value)[0] += 1;  // of rank 0's piece
    };
  }

 private:
  std::int64_t left_;
};

TEST_F(VerifyOverlap, AWeightThatOneRankReadsWronglyIsNamedWithTheRank) {
  VerifyHooks hooks;
  std::int64_t buckets = 0;
  const std::string sharded = "serial, one bucket, sharded";
  buckets = by_name(verify({sharded})).at(sharded).buckets;
  // The initial weights are gathered too.
  hooks.wrap_communicator = [&](std::unique_ptr<comm::Communicator> inner) -> std::unique_ptr<comm::Communicator> {
    return std::make_unique<LastGatherIsWrong>(std::move(inner), buckets * (kSteps + 1));
  };
  const VariantResult result = by_name(verify({sharded}, hooks)).at(sharded);
  EXPECT_EQ(result.verdict, Verdict::kFail);
  ASSERT_TRUE(result.difference.has_value());
  EXPECT_EQ(result.difference->step, kSteps);
  EXPECT_EQ(result.difference->rank, 1);
  EXPECT_TRUE(result.difference->what.starts_with("read/")) << result.difference->what;
}

TEST_F(VerifyOverlap, AnErrorOfOneRankEndsAllOfThem) {
  VerifyHooks hooks;
  hooks.wrap_device = [](Device& device, const Variant& variant, int rank) -> std::unique_ptr<Device> {
    if (variant.name != "input late" || rank != 1) return nullptr;
    auto faulty = std::make_unique<test::FaultyDevice>(device);
    faulty->faults().failures.push_back({.operation = "cross entropy", .from_match = 2});
    return faulty;
  };
  EXPECT_THROW(verify({"input late"}, hooks), DeviceError);
}

// A variant that does not fit is none that differs.
TEST_F(VerifyOverlap, WhatTheMachineCannotHoldIsNotRun) {
  VerifyHooks hooks;
  hooks.wrap_device = [](Device& device, const Variant& variant, int) -> std::unique_ptr<Device> {
    auto faulty = std::make_unique<test::FaultyDevice>(device);
    if (variant.name == "recompute block") faulty->faults().memory_to_refuse = "activations";
    return faulty;
  };
  const VerifyReport report = verify({"recompute block", "input late"}, hooks);
  EXPECT_TRUE(report.passed()) << report.first_failure();
  EXPECT_EQ(report.count(Verdict::kNotRun), 1);
  const auto results = by_name(report);
  EXPECT_EQ(results.at("recompute block").verdict, Verdict::kNotRun);
  EXPECT_NE(results.at("recompute block").problem.find("no memory"), std::string::npos);
  EXPECT_EQ(results.at("recompute block, sharded").verdict, Verdict::kPass) << "the next goes on";
}

#ifndef STRAKE_TSAN
TEST_F(VerifyOverlap, TheProgramEndsWithOneAndSaysWhy) {
  const auto config_path = job_.folder() / "job.toml";
  std::ofstream(config_path) << "[data]\ntrain = \"" << job_.train_tokens().string()
                             << "\"\n[model]\nlayers = 2\nchannels = 16\nheads = 2\n"
                                "[train]\nglobal_batch = 4\nmicro_batch = 2\nsequence = 16\n[run]\ndevice = \"cpu\"\n";
  VerifyOverlapArguments arguments;
  arguments.config_path = config_path.string();
  arguments.only = {"micro-batch 2 x 1: overlapped, a bucket a parameter"};
  arguments.steps = 2;
  const std::string variant = "overlapped, a bucket a parameter";
  const auto end = [&](const VerifyHooks& hooks) {  // of a process of its own, which has signals and standard output
    ::dup2(STDERR_FILENO, STDOUT_FILENO);
    const int code = run_verify_overlap(arguments, hooks);
    std::cout.flush();
    ::_exit(code);
  };
  EXPECT_EXIT(end({}), testing::ExitedWithCode(0), "2 of 2 variants equal");
  EXPECT_EXIT(
      end(drops(variant, "communication waits for gradients")),
      testing::ExitedWithCode(static_cast<int>(ExitCode::kFailure)),
      "FAIL\n.*order checker, rank 0: .*\n1 of 2 variants .*"
      "strake: error: 1 of the variants failed; the first: micro-batch 2 x 1: overlapped, a bucket a parameter: ");
}
#endif

}  // namespace
}  // namespace strake::launch
