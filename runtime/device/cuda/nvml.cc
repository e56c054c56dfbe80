#include "runtime/device/cuda/nvml.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

namespace strake {
namespace {

// The part of NVML's interface that is used here. Names with a version are fixed for ever; results other than
// kSuccess mean that something is not known.
constexpr int kSuccess = 0;
using Handle = struct NvmlDevice*;

enum NvmlClock : int { kSmClock = 1, kMemoryClock = 2 };
constexpr int kTemperatureOfGpu = 0;
constexpr unsigned kMostLinks = 18;  // of Hopper and Blackwell
constexpr unsigned kTextBytes = 96;

struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
};
struct MemoryInfo {
  unsigned long long total, free, used;
};

struct ProcessInfo {
  unsigned pid;
  unsigned long long used_bytes;  // all ones: not known
  unsigned gpu_instance, compute_instance;
};

constexpr int kRemoteSwitch = 2;  // where an NVLink leads

// Clock event reasons.
constexpr unsigned long long kReasonApplicationClocks = 0x2, kReasonPowerCap = 0x4, kReasonHardware = 0x8,
                             kReasonSyncBoost = 0x10, kReasonSoftThermal = 0x20, kReasonHardThermal = 0x40,
                             kReasonPowerBrake = 0x80;

std::uint32_t limits_of(unsigned long long reasons) {
  std::uint32_t limits = 0;
  const auto add = [&](unsigned long long bits, ClockLimit limit) {
    if ((reasons & bits) != 0) limits |= static_cast<std::uint32_t>(limit);
  };
  add(kReasonApplicationClocks, ClockLimit::kApplicationClocks);
  add(kReasonPowerCap, ClockLimit::kPowerCap);
  add(kReasonSoftThermal | kReasonHardThermal, ClockLimit::kThermal);
  add(kReasonHardware, ClockLimit::kHardware);
  add(kReasonPowerBrake, ClockLimit::kPowerBrake);
  add(kReasonSyncBoost, ClockLimit::kSyncBoost);
  return limits;
}

// What two GPUs have in common on the way to each other.
std::string name_of_common_ancestor(int level) {
  switch (level) {
    case 0:
      return "same board";
    case 10:
      return "one PCIe switch";
    case 20:
      return "several PCIe switches";
    case 30:
      return "PCIe host bridge";
    case 40:
      return "PCIe, one NUMA node";
    case 50:
      return "PCIe, between NUMA nodes";
    default:
      return "unknown";
  }
}

}  // namespace

// The loaded library; every function may be null.
class Nvml::Library {
 public:
  explicit Library(void* library) : library_(library) {
    find(init, "nvmlInit_v2");
    find(shutdown, "nvmlShutdown");
    find(driver_version, "nvmlSystemGetDriverVersion");
    find(handle_by_bus_id, "nvmlDeviceGetHandleByPciBusId_v2");
    find(clock, "nvmlDeviceGetClockInfo");
    find(max_clock, "nvmlDeviceGetMaxClockInfo");
    find(power, "nvmlDeviceGetPowerUsage");
    find(power_limit, "nvmlDeviceGetEnforcedPowerLimit");
    find(energy, "nvmlDeviceGetTotalEnergyConsumption");
    find(temperature, "nvmlDeviceGetTemperature");
    find(memory, "nvmlDeviceGetMemoryInfo");
    find(processes, "nvmlDeviceGetComputeRunningProcesses_v3");
    find(event_reasons, "nvmlDeviceGetCurrentClocksEventReasons");
    if (event_reasons == nullptr) find(event_reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");  // older drivers
    find(ecc, "nvmlDeviceGetEccMode");
    find(persistence, "nvmlDeviceGetPersistenceMode");
    find(link_state, "nvmlDeviceGetNvLinkState");
    find(link_remote_kind, "nvmlDeviceGetNvLinkRemoteDeviceType");
    find(link_remote_pci, "nvmlDeviceGetNvLinkRemotePciInfo_v2");
    find(common_ancestor, "nvmlDeviceGetTopologyCommonAncestor");
    ready_ = init != nullptr && init() == kSuccess;
  }
  ~Library() {
    if (ready_ && shutdown != nullptr) shutdown();
    dlclose(library_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  bool ready() const { return ready_; }
  Handle handle(const std::string& pci_bus_id) const {
    Handle device = nullptr;
    return handle_by_bus_id != nullptr && handle_by_bus_id(pci_bus_id.c_str(), &device) == kSuccess ? device : nullptr;
  }
  // The value that `function(arguments..., &value)` gives.
  template <typename Value, typename... Parameters, typename... Arguments>
  static std::optional<Value> ask(int (*function)(Parameters...), Arguments... arguments) {
    Value value{};
    if (function == nullptr || function(arguments..., &value) != kSuccess) return std::nullopt;
    return value;
  }
  std::optional<int> clock_mhz(int (*function)(Handle, int, unsigned*), Handle device, NvmlClock kind) const {
    const auto mhz = ask<unsigned>(function, device, static_cast<int>(kind));
    return mhz.has_value() ? std::optional(static_cast<int>(*mhz)) : std::nullopt;
  }

  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*driver_version)(char*, unsigned) = nullptr;
  int (*handle_by_bus_id)(const char*, Handle*) = nullptr;
  int (*clock)(Handle, int, unsigned*) = nullptr;
  int (*max_clock)(Handle, int, unsigned*) = nullptr;
  int (*power)(Handle, unsigned*) = nullptr;
  int (*power_limit)(Handle, unsigned*) = nullptr;
  int (*energy)(Handle, unsigned long long*) = nullptr;
  int (*temperature)(Handle, int, unsigned*) = nullptr;
  int (*memory)(Handle, MemoryInfo*) = nullptr;
  int (*processes)(Handle, unsigned*, ProcessInfo*) = nullptr;
  int (*event_reasons)(Handle, unsigned long long*) = nullptr;
  int (*ecc)(Handle, int*, int*) = nullptr;
  int (*persistence)(Handle, int*) = nullptr;
  int (*link_state)(Handle, unsigned, int*) = nullptr;
  int (*link_remote_kind)(Handle, unsigned, int*) = nullptr;
  int (*link_remote_pci)(Handle, unsigned, PciInfo*) = nullptr;
  int (*common_ancestor)(Handle, Handle, int*) = nullptr;

 private:
  template <typename Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
  }

  void* library_;
  bool ready_ = false;
};

class Nvml::Sensor final : public GpuSensor {
 public:
  Sensor(std::shared_ptr<const Library> library, Handle device) : library_(std::move(library)), device_(device) {}

  GpuSample read() const override {
    const Library& nvml = *library_;
    GpuSample sample;
    if (const auto milliwatts = Library::ask<unsigned>(nvml.power, device_)) sample.power_w = *milliwatts / 1e3;
    if (const auto millijoules = Library::ask<unsigned long long>(nvml.energy, device_)) {
      sample.energy_j = static_cast<double>(*millijoules) / 1e3;
    }
    sample.sm_clock_mhz = nvml.clock_mhz(nvml.clock, device_, kSmClock);
    sample.memory_clock_mhz = nvml.clock_mhz(nvml.clock, device_, kMemoryClock);
    if (const auto celsius = Library::ask<unsigned>(nvml.temperature, device_, kTemperatureOfGpu)) {
      sample.temperature_c = static_cast<int>(*celsius);
    }
    if (const auto memory = Library::ask<MemoryInfo>(nvml.memory, device_)) sample.memory_used_bytes = memory->used;
    if (const auto reasons = Library::ask<unsigned long long>(nvml.event_reasons, device_)) {
      sample.limits = limits_of(*reasons);
    }
    return sample;
  }

 private:
  std::shared_ptr<const Library> library_;
  Handle device_;
};

Nvml::Nvml(Nvml&&) noexcept = default;
Nvml& Nvml::operator=(Nvml&&) noexcept = default;
Nvml::~Nvml() = default;

std::optional<Nvml> Nvml::load(const char* library) {
  void* const file = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (file == nullptr) return std::nullopt;
  auto loaded = std::make_shared<const Library>(file);
  if (!loaded->ready()) return std::nullopt;
  return Nvml(std::move(loaded));
}

std::string Nvml::driver_version() const {
  std::array<char, kTextBytes> text{};
  const bool known =
      library_->driver_version != nullptr && library_->driver_version(text.data(), kTextBytes) == kSuccess;
  return known ? text.data() : "";
}

void Nvml::complete(GpuFacts& facts) const {
  const Library& nvml = *library_;
  const Handle device = nvml.handle(facts.pci_bus_id);
  if (device == nullptr) return;
  if (const auto mhz = nvml.clock_mhz(nvml.max_clock, device, kSmClock)) facts.max_sm_clock_mhz = mhz;
  if (const auto mhz = nvml.clock_mhz(nvml.max_clock, device, kMemoryClock)) facts.max_memory_clock_mhz = mhz;
  facts.sm_clock_mhz = nvml.clock_mhz(nvml.clock, device, kSmClock);
  facts.memory_clock_mhz = nvml.clock_mhz(nvml.clock, device, kMemoryClock);
  if (const auto milliwatts = Library::ask<unsigned>(nvml.power_limit, device)) {
    facts.power_limit_w = *milliwatts / 1e3;
  }
  int now = 0, after_reboot = 0;
  if (nvml.ecc != nullptr && nvml.ecc(device, &now, &after_reboot) == kSuccess) facts.ecc = now != 0;
  if (const auto mode = Library::ask<int>(nvml.persistence, device)) facts.persistence = *mode != 0;
}

GpuLink Nvml::link(const GpuFacts& first, const GpuFacts& second) const {
  const Library& nvml = *library_;
  GpuLink out{.first = first.ordinal, .second = second.ordinal, .path = "unknown"};
  const Handle a = nvml.handle(first.pci_bus_id), b = nvml.handle(second.pci_bus_id);
  if (a == nullptr || b == nullptr) return out;

  // The links that are up lead to the other GPU itself, or to switches, which join all GPUs that have links to them.
  struct Links {
    int direct = 0, to_switch = 0, unknown = 0;
  };
  const auto links_between = [&nvml](Handle from, Handle to) {
    Links links;
    for (unsigned i = 0; i < kMostLinks; ++i) {
      if (Library::ask<int>(nvml.link_state, from, i).value_or(0) == 0) continue;
      const auto kind = Library::ask<int>(nvml.link_remote_kind, from, i);
      const auto remote = Library::ask<PciInfo>(nvml.link_remote_pci, from, i);
      if (kind == kRemoteSwitch) {
        ++links.to_switch;
      } else if (!remote.has_value()) {
        ++links.unknown;
      } else if (nvml.handle(remote->bus_id) == to) {
        ++links.direct;
      }
    }
    return links;
  };
  const Links there = links_between(a, b), back = links_between(b, a);
  if (there.direct > 0) {
    out.nvlinks = there.direct;
    out.path = fmt::format("NV{}", out.nvlinks);
  } else if (const int switched = std::min(there.to_switch, back.to_switch); switched > 0) {
    out.nvlinks = switched;
    out.through_switch = true;
    out.path = fmt::format("NV{} through NVSwitch", switched);
  } else if (const int unknown = std::min(there.unknown, back.unknown); unknown > 0) {
    out.path = fmt::format("perhaps NV{}: where the links lead is not known", unknown);
  } else if (const auto level = Library::ask<int>(nvml.common_ancestor, a, b)) {
    out.path = name_of_common_ancestor(*level);
  }
  return out;
}

std::optional<std::size_t> Nvml::memory_of_process(const std::string& pci_bus_id, unsigned pid) const {
  const Library& nvml = *library_;
  const Handle device = nvml.handle(pci_bus_id);
  std::array<ProcessInfo, 256> processes{};
  unsigned count = processes.size();
  if (device == nullptr || nvml.processes == nullptr || nvml.processes(device, &count, processes.data()) != kSuccess) {
    return std::nullopt;
  }
  for (const ProcessInfo& process : std::span(processes).first(count)) {
    if (process.pid == pid && process.used_bytes != ~0ull) return process.used_bytes;
  }
  return std::nullopt;
}

std::unique_ptr<GpuSensor> Nvml::sensor(const std::string& pci_bus_id) const {
  const Handle device = library_->handle(pci_bus_id);
  return device == nullptr ? nullptr : std::make_unique<Sensor>(library_, device);
}

}  // namespace strake
