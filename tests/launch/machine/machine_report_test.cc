#include "launch/machine/machine_report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "launch/job/devices.h"

namespace strake::launch {
namespace {

GpuMachine two_gpus() {
  GpuFacts first{.ordinal = 0,
                 .name = "NVIDIA Example",
                 .pci_bus_id = "0000:1B:00.0",
                 .uuid = "GPU-01",
                 .memory_bytes = std::size_t{80} << 30,
                 .multiprocessors = 132,
                 .compute_capability = 90,
                 .max_sm_clock_mhz = 1980,
                 .max_memory_clock_mhz = 2619,
                 .sm_clock_mhz = 345,
                 .memory_clock_mhz = 2619,
                 .power_limit_w = 700,
                 .ecc = true,
                 .persistence = false};
  GpuFacts second{.ordinal = 1, .name = "NVIDIA Example", .pci_bus_id = "0000:43:00.0", .uuid = "GPU-02"};
  return {.missing = "",
          .driver = "580.159.04",
          .gpus = {first, second},
          .links = {{.first = 0, .second = 1, .nvlinks = 18, .through_switch = true, .path = "NV18 through NVSwitch"}}};
}

TEST(MachineReport, TellsPeopleWhatIsThere) {
  const std::string text = describe(two_gpus());
  for (const char* part :
       {"cuda: 2 GPUs, driver 580.159.04", "0: NVIDIA Example, PCI 0000:1B:00.0, GPU-01", "sm_90, 132 multiprocessors",
        "80.0 GiB", "SM clock 345 of 1980 MHz", "power limit 700 W, ECC on, persistence off", "SM clock ? of ? MHz",
        "0 - 1: NV18 through NVSwitch"}) {
    EXPECT_NE(text.find(part), std::string::npos) << "no '" << part << "' in:\n" << text;
  }
  EXPECT_NE(text.back(), '\n');
}

TEST(MachineReport, TellsWhyNothingIsThere) {
  EXPECT_EQ(describe({.missing = "not built in"}), "cuda: not built in");
  EXPECT_EQ(describe({.missing = "no GPU is visible", .driver = "1.2"}), "cuda: no GPU is visible (driver 1.2)");
}

TEST(MachineReport, KeepsWhatIsNotKnownAsNull) {
  const auto json = hardware_json(two_gpus());
  EXPECT_EQ(json["gpu_driver"], "580.159.04");
  ASSERT_EQ(json["gpus"].size(), 2u);
  const auto& first = json["gpus"][0];
  EXPECT_EQ(first["pci_bus_id"], "0000:1B:00.0");
  EXPECT_EQ(first["memory_bytes"], std::size_t{80} << 30);
  EXPECT_EQ(first["compute_capability"], "9.0");
  EXPECT_EQ(first["max_sm_clock_mhz"], 1980);
  EXPECT_EQ(first["power_limit_w"], 700.0);
  EXPECT_EQ(first["ecc"], true);
  EXPECT_EQ(first["persistence"], false);
  const auto& second = json["gpus"][1];
  EXPECT_EQ(second.size(), first.size());
  for (const char* key : {"sm_clock_mhz", "memory_clock_mhz", "power_limit_w", "ecc", "persistence"}) {
    EXPECT_TRUE(second.at(key).is_null()) << key;
  }
  ASSERT_EQ(json["gpu_links"].size(), 1u);
  EXPECT_EQ(json["gpu_links"][0]["gpus"], nlohmann::ordered_json({0, 1}));
  EXPECT_EQ(json["gpu_links"][0]["nvlinks"], 18);
  EXPECT_EQ(json["gpu_links"][0]["through_switch"], true);
}

TEST(MachineReport, OfThisMachineAgreesWithItself) {
  const GpuMachine machine = read_gpus();
  EXPECT_EQ(machine.gpus.empty(), !machine.missing.empty());
  EXPECT_EQ(machine.links.size(), machine.gpus.size() * (machine.gpus.size() + 1) / 2 - machine.gpus.size());
  const auto json = hardware_json(machine);
  EXPECT_EQ(json["gpus"].size(), machine.gpus.size());
  EXPECT_TRUE(json["gpus"].is_array());
  EXPECT_GE(json["cores"], 1);
  EXPECT_EQ(utc_now().size(), std::string("2026-11-22T20:31:00Z").size());
}

}  // namespace
}  // namespace strake::launch
