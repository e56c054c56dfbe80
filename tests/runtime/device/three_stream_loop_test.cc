#include "tests/runtime/device/three_stream_loop.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/order_checker.h"
#include "runtime/device/recording.h"
#include "tests/support/faulty_device.h"

namespace strake::test {
namespace {

using std::chrono::microseconds;

TEST(ThreeStreamLoop, IsCheckedWithoutReport) {
  const auto cpu = make_cpu_device();
  CheckedDevice checked(*cpu, CheckedDevice::Policy::kThrow);
  FaultyDevice device(checked);
  {
    ThreeStreamLoop loop(device);
    EXPECT_EQ(loop.run(8), ThreeStreamLoop::expected(8));
  }
  EXPECT_TRUE(checked.checker().reports().empty());
  ASSERT_EQ(device.waits_passed().size(), kLoopWaits.size());
  for (const auto site : kLoopWaits) EXPECT_EQ(device.waits_passed().at(std::string(site)), 8) << site;
}

TEST(ThreeStreamLoop, EveryWaitIsLoadBearing) {
  for (const auto site : kLoopWaits) {
    SCOPED_TRACE(site);
    // The checker needs no execution: on the plan device the race is found but never happens.
    PlanDevice plan;
    CheckedDevice checked(plan, CheckedDevice::Policy::kCollect);
    FaultyDevice device(checked);
    device.faults().wait_to_drop = site;
    device.faults().drop_from_pass = 2;
    ThreeStreamLoop loop(device);
    loop.enqueue(2);
    EXPECT_EQ(device.waits_dropped(), 0);
    EXPECT_TRUE(checked.checker().reports().empty());
    loop.enqueue(4);
    EXPECT_EQ(device.waits_dropped(), 4);
    EXPECT_FALSE(checked.checker().reports().empty());
  }
}

TEST(ThreeStreamLoop, DelaysOfAnyStreamOrTheHostChangeNothing) {
  for (const std::string stream : {"copy", "compute", "comm", ""}) {
    for (const auto where : {Delay::Where::kStream, Delay::Where::kHost}) {
      SCOPED_TRACE(stream);
      const auto cpu = make_cpu_device();
      FaultyDevice device(*cpu, /*seed=*/7);
      device.faults().delays.push_back(
          {.target = {.stream = stream}, .fixed = microseconds(20), .random = microseconds(200), .where = where});
      ThreeStreamLoop loop(device);
      EXPECT_EQ(loop.run(20), ThreeStreamLoop::expected(20));
      EXPECT_EQ(device.faults().delays[0].target.matches, 20 * (stream.empty() ? 6 : stream == "compute" ? 4 : 1));
    }
  }
}

TEST(ThreeStreamLoop, FailsInTheChosenOperation) {
  const auto cpu = make_cpu_device();
  FaultyDevice device(*cpu);
  device.faults().failures.push_back({.stream = "compute", .operation = "forward with", .from_match = 3});
  ThreeStreamLoop loop(device);
  EXPECT_EQ(loop.run(3), ThreeStreamLoop::expected(3));
  try {
    loop.run(1);
    ADD_FAILURE() << "no error";
  } catch (const DeviceError& error) {
    EXPECT_STREQ(error.what(), "injected failure of 'forward with weights'");
  }
}

}  // namespace
}  // namespace strake::test
