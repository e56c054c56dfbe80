// Nvml against a stand-in of the driver's library, and, where there is a GPU, against CUDA.

#include "runtime/device/cuda/nvml.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "runtime/device/cuda/cuda_device.h"

namespace strake {
namespace {

GpuFacts gpu(int index) { return {.ordinal = index, .pci_bus_id = "0000:0" + std::to_string(index) + ":00.0"}; }

class StandIn : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(STRAKE_STAND_IN_NVML)) GTEST_SKIP() << "the stand-in is on the machine that built it";
    nvml_ = Nvml::load(STRAKE_STAND_IN_NVML);
    ASSERT_TRUE(nvml_.has_value());
  }
  std::optional<Nvml> nvml_;
};

TEST_F(StandIn, FactsAreThoseOfTheGpuWithThatBusId) {
  EXPECT_EQ(nvml_->driver_version(), "123.45.06");
  GpuFacts facts = gpu(3);
  facts.ordinal = 0;  // CUDA_VISIBLE_DEVICES=3
  nvml_->complete(facts);
  EXPECT_EQ(facts.sm_clock_mhz, 1003);
  EXPECT_EQ(facts.memory_clock_mhz, 2003);
  EXPECT_EQ(facts.max_sm_clock_mhz, 1903);
  EXPECT_EQ(facts.max_memory_clock_mhz, 2903);
  EXPECT_EQ(facts.power_limit_w, 700);
  EXPECT_EQ(facts.ecc, false);
  EXPECT_FALSE(facts.persistence.has_value()) << "the library has no such function";
  GpuFacts first = gpu(0);
  nvml_->complete(first);
  EXPECT_EQ(first.ecc, true);
}

TEST_F(StandIn, WhatIsNotSupportedStaysAsItWas) {
  GpuFacts facts = gpu(5);
  facts.max_sm_clock_mhz = 1234;  // CUDA knows
  nvml_->complete(facts);
  EXPECT_EQ(facts.max_sm_clock_mhz, 1234);
  EXPECT_FALSE(facts.sm_clock_mhz.has_value());
  EXPECT_FALSE(facts.power_limit_w.has_value());
  EXPECT_FALSE(facts.ecc.has_value());
  GpuFacts stranger{.pci_bus_id = "0000:77:00.0"};
  nvml_->complete(stranger);
  EXPECT_FALSE(stranger.max_sm_clock_mhz.has_value());
  EXPECT_EQ(nvml_->sensor(stranger.pci_bus_id), nullptr);
}

TEST_F(StandIn, ListsWhatAProcessTakes) {
  EXPECT_EQ(nvml_->memory_of_process("0000:03:00.0", 103), std::size_t{3} << 30);
  EXPECT_FALSE(nvml_->memory_of_process("0000:03:00.0", 104).has_value()) << "it computes on another GPU";
  EXPECT_FALSE(nvml_->memory_of_process("0000:03:00.0", 7).has_value()) << "listed, but not what it takes";
  EXPECT_FALSE(nvml_->memory_of_process("0000:05:00.0", 105).has_value()) << "the GPU answers nothing";
  EXPECT_FALSE(nvml_->memory_of_process("0000:77:00.0", 103).has_value());
}

TEST_F(StandIn, LinksThroughSwitchesDirectAndNone) {
  const GpuLink switched = nvml_->link(gpu(0), gpu(1));
  EXPECT_EQ(switched.path, "NV18 through NVSwitch");
  EXPECT_EQ(switched.nvlinks, 18);
  EXPECT_TRUE(switched.through_switch);
  EXPECT_EQ(switched.first, 0);
  EXPECT_EQ(switched.second, 1);

  const GpuLink direct = nvml_->link(gpu(2), gpu(3));
  EXPECT_EQ(direct.path, "NV4");
  EXPECT_EQ(direct.nvlinks, 4);
  EXPECT_FALSE(direct.through_switch);

  for (const auto& [first, second] : {std::pair(0, 2), {2, 0}, {3, 4}, {4, 0}}) {
    const GpuLink none = nvml_->link(gpu(first), gpu(second));
    EXPECT_EQ(none.path, "PCIe, between NUMA nodes") << first << " - " << second;
    EXPECT_EQ(none.nvlinks, 0);
  }
  EXPECT_EQ(nvml_->link(gpu(4), gpu(5)).path, "unknown");
  EXPECT_EQ(nvml_->link(gpu(0), {.pci_bus_id = "0000:77:00.0"}).path, "unknown");
}

TEST_F(StandIn, ASensorReadsItsGpuAndOutlivesTheRest) {
  const auto first = nvml_->sensor("0000:00:00.0"), unknown = nvml_->sensor("0000:05:00.0");
  nvml_.reset();
  const GpuSample sample = first->read();
  EXPECT_EQ(sample.power_w, 250.5);
  EXPECT_EQ(sample.energy_j, 5'000'000'000.5);
  EXPECT_EQ(sample.sm_clock_mhz, 1000);
  EXPECT_EQ(sample.temperature_c, 50);
  EXPECT_EQ(sample.memory_used_bytes, std::size_t{70} << 30);
  EXPECT_EQ(limits_in(sample.limits), (std::vector{ClockLimit::kPowerCap, ClockLimit::kThermal})) << "idle is no limit";

  const GpuSample nothing = unknown->read();
  EXPECT_FALSE(nothing.power_w.has_value());
  EXPECT_FALSE(nothing.energy_j.has_value());
  EXPECT_FALSE(nothing.sm_clock_mhz.has_value());
  EXPECT_FALSE(nothing.memory_used_bytes.has_value());
  EXPECT_EQ(nothing.limits, 0u);
}

TEST(Nvml, WithoutADriverThereIsNothing) { EXPECT_FALSE(Nvml::load("libno-such-driver.so.1").has_value()); }

TEST(Nvml, AgreesWithCuda) {
  const GpuMachine machine = cuda_machine();
  if (machine.gpus.empty()) GTEST_SKIP() << "no GPU: " << machine.missing;
  if (machine.driver.empty()) GTEST_SKIP() << "no libnvidia-ml.so.1 beside the driver";
  EXPECT_EQ(machine.links.size(), machine.gpus.size() * (machine.gpus.size() - 1) / 2);
  for (const GpuFacts& facts : machine.gpus) {
    const GpuFacts by_cuda = cuda_facts(facts.ordinal);
    EXPECT_EQ(facts.max_sm_clock_mhz, by_cuda.max_sm_clock_mhz);
    EXPECT_TRUE(facts.power_limit_w.has_value());
    EXPECT_EQ(facts.uuid.size(), std::string("GPU-01234567-89ab-cdef-0123-456789abcdef").size()) << facts.uuid;
  }
  select_cuda_device(machine.gpus.front().ordinal);
  const auto sensor = make_cuda_sensor();
  ASSERT_NE(sensor, nullptr);
  const GpuSample sample = sensor->read();
  EXPECT_GT(sample.power_w, 0);
  EXPECT_GT(sample.sm_clock_mhz, 0);
  EXPECT_LE(*sample.memory_used_bytes, machine.gpus.front().memory_bytes);
}

}  // namespace
}  // namespace strake
