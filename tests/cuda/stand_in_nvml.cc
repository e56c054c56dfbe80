// A stand-in for the driver's libnvidia-ml.so.1: a machine of six GPUs that are linked in three ways.
//
//   0, 1: 18 NVLinks each to switches      2, 3: 4 NVLinks to each other      4, 5: no NVLink between them; 5 answers
//   nothing
//
// GPU i has PCI bus id 0000:0i:00.0, and its numbers are made from i. Built as a library of its own; nvml_test loads
// it.
#include <cstdio>
#include <cstring>

namespace {

struct Gpu {
  int index;
};
Gpu gpus[6] = {{0}, {1}, {2}, {3}, {4}, {5}};

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
  unsigned long long used_bytes;
  unsigned gpu_instance, compute_instance;
};

constexpr int kSuccess = 0, kNotSupported = 3, kNotFound = 6, kInsufficientSize = 7;
constexpr int kUnknown = 5;  // the GPU that answers nothing

int answer(const Gpu* gpu, unsigned* out, unsigned value) {
  if (gpu->index == kUnknown) return kNotSupported;
  *out = value;
  return kSuccess;
}
unsigned number(const Gpu* gpu) { return static_cast<unsigned>(gpu->index); }

bool linked(const Gpu* gpu, unsigned link) {
  return (gpu->index <= 1 && link < 18) || ((gpu->index == 2 || gpu->index == 3) && link >= 2 && link < 6);
}

}  // namespace

extern "C" {

int nvmlInit_v2() { return kSuccess; }
int nvmlShutdown() { return kSuccess; }
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::snprintf(text, size, "123.45.06");
  return kSuccess;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, Gpu** out) {
  unsigned domain = 0, bus = 0;
  if (std::sscanf(bus_id, "%x:%x:00.0", &domain, &bus) != 2 || bus > 5) return kNotFound;
  *out = &gpus[bus];
  return kSuccess;
}
// Process 100 + i computes on GPU i, and process 7 on all, which does not say what it takes.
int nvmlDeviceGetComputeRunningProcesses_v3(const Gpu* gpu, unsigned* count, ProcessInfo* processes) {
  if (gpu->index == kUnknown) return kNotSupported;
  if (*count < 2) return kInsufficientSize;
  *count = 2;
  processes[0] = {7, ~0ull, ~0u, ~0u};
  processes[1] = {100 + number(gpu), 3ull << 30, ~0u, ~0u};
  return kSuccess;
}
int nvmlDeviceGetClockInfo(const Gpu* gpu, int kind, unsigned* mhz) {
  return answer(gpu, mhz, (kind == 1 ? 1000u : 2000u) + number(gpu));
}
int nvmlDeviceGetMaxClockInfo(const Gpu* gpu, int kind, unsigned* mhz) {
  return answer(gpu, mhz, (kind == 1 ? 1900u : 2900u) + number(gpu));
}
int nvmlDeviceGetPowerUsage(const Gpu* gpu, unsigned* milliwatts) { return answer(gpu, milliwatts, 250'500); }
int nvmlDeviceGetEnforcedPowerLimit(const Gpu* gpu, unsigned* milliwatts) { return answer(gpu, milliwatts, 700'000); }
int nvmlDeviceGetTotalEnergyConsumption(const Gpu* gpu, unsigned long long* millijoules) {
  if (gpu->index == kUnknown) return kNotSupported;
  *millijoules = 5'000'000'000'500;  // more than 32 bits
  return kSuccess;
}
int nvmlDeviceGetTemperature(const Gpu* gpu, int, unsigned* celsius) { return answer(gpu, celsius, 50 + number(gpu)); }
int nvmlDeviceGetMemoryInfo(const Gpu* gpu, MemoryInfo* out) {
  if (gpu->index == kUnknown) return kNotSupported;
  *out = {100ull << 30, 30ull << 30, 70ull << 30};
  return kSuccess;
}
// Only the name of older drivers. Idle, power cap, hardware thermal.
int nvmlDeviceGetCurrentClocksThrottleReasons(const Gpu* gpu, unsigned long long* reasons) {
  if (gpu->index == kUnknown) return kNotSupported;
  *reasons = gpu->index == 0 ? 0x1 | 0x4 | 0x40 : 0x1;
  return kSuccess;
}
int nvmlDeviceGetEccMode(const Gpu* gpu, int* now, int* after_reboot) {
  *now = gpu->index == 0;
  *after_reboot = 1;
  return gpu->index == kUnknown ? kNotSupported : kSuccess;
}
// nvmlDeviceGetPersistenceMode: absent, as from an old library.

int nvmlDeviceGetNvLinkState(const Gpu* gpu, unsigned link, int* active) {
  if (gpu->index >= 4) return kNotSupported;
  *active = linked(gpu, link);
  return kSuccess;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(const Gpu* gpu, unsigned link, int* kind) {
  if (!linked(gpu, link)) return kNotSupported;
  *kind = gpu->index <= 1 ? 2 : 0;  // switch, GPU
  return kSuccess;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(const Gpu* gpu, unsigned link, PciInfo* out) {
  if (!linked(gpu, link)) return kNotSupported;
  std::memset(out, 0, sizeof *out);
  // A switch is no GPU of the machine; 2 and 3 see each other.
  std::snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", gpu->index <= 1 ? 0xA0u : 5u - number(gpu));
  return kSuccess;
}
int nvmlDeviceGetTopologyCommonAncestor(const Gpu* first, const Gpu* second, int* level) {
  if (first->index == kUnknown || second->index == kUnknown) return kNotSupported;
  *level = 50;
  return kSuccess;
}
}
