// What is known about the GPUs of this machine: what they are, how they are linked, and what one of them does right
// now. Plain values, the same in every build; backends fill them in.
// Threads: values; a GpuSensor is read by one thread at a time. Errors: none; what is not known is absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace strake {

struct GpuFacts {
  int ordinal = 0;  // as this process counts them
  std::string name = {};
  std::string pci_bus_id = {};  // "0000:1B:00.0"
  std::string uuid = {};        // "GPU-01234567-89ab-cdef-0123-456789abcdef"
  std::size_t memory_bytes = 0;
  int multiprocessors = 0;
  int compute_capability = 0;  // 90 = 9.0
  int memory_bus_bits = 0;
  std::size_t l2_bytes = 0;
  std::optional<int> max_sm_clock_mhz = {}, max_memory_clock_mhz = {};
  std::optional<int> sm_clock_mhz = {}, memory_clock_mhz = {};  // now
  std::optional<double> power_limit_w = {};
  std::optional<bool> ecc = {}, persistence = {};
};

// How two GPUs reach each other.
struct GpuLink {
  int first = 0, second = 0;  // ordinals
  int nvlinks = 0;            // direct ones, or to a switch that joins both
  bool through_switch = false;
  std::string path = {};  // "NV18", "NV18 through NVSwitch", "one PCIe switch", ..., or "unknown"
};

struct GpuMachine {
  std::string missing = {};  // why there are no GPUs; empty if there are
  std::string driver = {};   // "580.159.04"; empty: not known
  std::vector<GpuFacts> gpus = {};
  std::vector<GpuLink> links = {};  // each pair once
};

// Why a GPU runs slower than it could. Bits of GpuSample::limits.
enum class ClockLimit : std::uint32_t {
  kApplicationClocks = 1u << 0,  // clocks that a user has set
  kPowerCap = 1u << 1,
  kThermal = 1u << 2,   // software or hardware
  kHardware = 1u << 3,  // too hot or too much power: the clock is halved or worse
  kPowerBrake = 1u << 4,
  kSyncBoost = 1u << 5,
};
// "power cap", ...
std::string name_of(ClockLimit limit);
std::vector<ClockLimit> limits_in(std::uint32_t limits);
// Does it make a measurement of speed one of the limit? Clocks that a user has set, or that follow another GPU's, do
// not.
bool is_throttle(ClockLimit limit);

struct GpuSample {
  std::optional<double> power_w = {};
  std::optional<double> energy_j = {};  // since the driver was loaded
  std::optional<int> sm_clock_mhz = {}, memory_clock_mhz = {};
  std::optional<int> temperature_c = {};
  std::optional<std::size_t> memory_used_bytes = {};  // on the whole GPU
  std::uint32_t limits = 0;
};

// Reads one GPU.
class GpuSensor {
 public:
  virtual ~GpuSensor() = default;
  virtual GpuSample read() const = 0;
};

}  // namespace strake
