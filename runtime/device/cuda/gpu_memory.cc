#include "runtime/device/cuda/gpu_memory.h"

#include <unistd.h>

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/device/cuda/cuda_call.h"
#include "runtime/device/cuda/nvml.h"

namespace strake::cuda {
namespace {

// Asking CUDA for it would make the context that is to be measured.
std::string pci_bus_id(int ordinal) {
  std::array<char, 32> bus_id{};
  if (cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), ordinal) != cudaSuccess) {
    cudaGetLastError();
    return "";
  }
  return bus_id.data();
}

const std::optional<Nvml>& nvml() {
  static const std::optional<Nvml> loaded = Nvml::load();
  return loaded;
}

// On the whole GPU.
std::optional<std::size_t> used_bytes(int ordinal) {
  if (!nvml().has_value()) return std::nullopt;
  const std::unique_ptr<GpuSensor> sensor = nvml()->sensor(pci_bus_id(ordinal));
  return sensor == nullptr ? std::nullopt : sensor->read().memory_used_bytes;
}

std::mutex mutex;
std::map<int, std::optional<std::size_t>> used_before_bytes;  // by ordinal

}  // namespace

void note_gpu_memory_before_use(int ordinal) {
  const std::lock_guard lock(mutex);
  if (!used_before_bytes.contains(ordinal)) used_before_bytes[ordinal] = used_bytes(ordinal);
}

void note_gpu_is_shared(int ordinal) {
  const std::lock_guard lock(mutex);
  used_before_bytes[ordinal] = std::nullopt;
}

std::optional<std::size_t> gpu_memory_of_this_process(int ordinal) {
  if (!nvml().has_value()) return std::nullopt;
  if (const auto listed = nvml()->memory_of_process(pci_bus_id(ordinal), static_cast<unsigned>(getpid())))
    return listed;
  const std::lock_guard lock(mutex);
  const auto before = used_before_bytes.find(ordinal);
  const std::optional<std::size_t> now = used_bytes(ordinal);
  if (before == used_before_bytes.end() || !before->second.has_value() || !now.has_value()) return std::nullopt;
  return *now >= *before->second ? std::optional(*now - *before->second) : std::nullopt;
}

}  // namespace strake::cuda
