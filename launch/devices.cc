#include "launch/devices.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "launch/matmul_rate.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"

#ifdef STRAKE_HAS_CUDA
#include "comm/nccl/nccl_communicator.h"
#include "kernels/cuda/make_kernels.h"
#include "runtime/device/cuda/cuda_device.h"
#endif

namespace strake::launch {
namespace {

// "rank 3: ", or nothing where there is one rank.
std::string of_rank(std::size_t rank, std::size_t ranks) { return ranks == 1 ? "" : fmt::format("rank {}: ", rank); }

std::string why_no_gpus(std::span<const GpuOffer> offers) {
  std::map<std::string_view, std::size_t> rank_of;  // by GPU
  for (std::size_t rank = 0; rank < offers.size(); ++rank) {
    const GpuOffer& offer = offers[rank];
    if (offer.uuid.empty()) return of_rank(rank, offers.size()) + offer.missing;
    if (const auto [taken, is_new] = rank_of.emplace(offer.uuid, rank); !is_new) {
      return fmt::format("ranks {} and {} would share one GPU; start a rank for each GPU at most", taken->second, rank);
    }
  }
  return "";
}

}  // namespace

std::string GpuOffer::to_text() const { return uuid.empty() ? "-" + missing : "+" + uuid; }

GpuOffer GpuOffer::from_text(const std::string& text) {
  STRAKE_CHECK(text.starts_with('+') || text.starts_with('-'), "text of to_text: " + text);
  const std::string rest = text.substr(1);
  return text.front() == '+' ? GpuOffer{rest, ""} : GpuOffer{"", rest};
}

ChosenDevice choose_device(DeviceChoice choice, std::span<const GpuOffer> offers, std::string_view asked) {
  if (choice == DeviceChoice::kCpu) return {DeviceKind::kCpu, "run.device = cpu"};
  std::string missing = why_no_gpus(offers);
  if (missing.empty()) return {DeviceKind::kCuda, ""};
  if (choice == DeviceChoice::kCuda) {
    throw ConfigError(fmt::format("{}: {}. To do without GPUs, say auto or cpu", asked, missing));
  }
  return {DeviceKind::kCpu, std::move(missing)};
}

#ifdef STRAKE_HAS_CUDA

GpuOffer offer_gpu(DeviceChoice choice, const RankEnvironment& environment) {
  if (choice == DeviceChoice::kCpu) return {"", "run.device = cpu"};
  try {
    const int gpus = cuda_device_number();
    if (gpus == 0) return {"", cuda_unavailable_reason()};
    const int ordinal = environment.local_rank % gpus;
    select_cuda_device(ordinal);
    const GpuFacts facts = cuda_facts(ordinal);
    if (!kernels::cuda::has_code_for_current_gpu()) {
      return {"", fmt::format("this program holds no code for {} (compute capability {}.{}); build it with "
                              "CMAKE_CUDA_ARCHITECTURES={}",
                              facts.name, facts.compute_capability / 10, facts.compute_capability % 10,
                              facts.compute_capability)};
    }
    return {facts.uuid, ""};
  } catch (const DeviceError& error) {
    return {"", error.what()};
  }
}

std::unique_ptr<Device> make_device(DeviceKind kind, bool deterministic) {
  if (kind != DeviceKind::kCuda) return make_cpu_device();
  return make_cuda_device(current_cuda_device(), kernels::cuda::make_kernels(deterministic));
}

std::unique_ptr<comm::Communicator> make_communicator(Device& device, comm::Control& control,
                                                      std::unique_ptr<comm::Communicator> host) {
  if (device.kind() != DeviceKind::kCuda || control.size() == 1) return host;
  return comm::make_nccl_communicator(control);
}

double peak_flops(Device& device) {
  if (device.kind() != DeviceKind::kCuda) return measure_matmul_rate(device);
  const GpuFacts facts = cuda_facts(current_cuda_device());
  // Dense bf16, from the vendor's datasheets.
  if (facts.compute_capability == 90) {
    if (facts.name.find("NVL") != std::string::npos) return 835.5e12;  // H100 NVL, H200 NVL
    if (facts.multiprocessors >= 128) return 989.4e12;                 // H100 SXM, H200 SXM, GH200
    if (facts.multiprocessors == 114) return 756e12;                   // H100 PCIe
  }
  if (facts.compute_capability == 80 && facts.multiprocessors == 108) return 312e12;  // A100
  return 0;
}

GpuMachine read_gpus() { return cuda_machine(); }
std::unique_ptr<GpuSensor> make_gpu_sensor(Device& device) {
  return device.kind() == DeviceKind::kCuda ? make_cuda_sensor() : nullptr;
}

#else

GpuOffer offer_gpu(DeviceChoice, const RankEnvironment&) {
  return {"", "this program was built without CUDA; build it with STRAKE_CUDA=ON"};
}
std::unique_ptr<Device> make_device(DeviceKind, bool) { return make_cpu_device(); }
std::unique_ptr<comm::Communicator> make_communicator(Device&, comm::Control&,
                                                      std::unique_ptr<comm::Communicator> host) {
  return host;
}
double peak_flops(Device& device) { return measure_matmul_rate(device); }
GpuMachine read_gpus() { return {.missing = "not built in"}; }
std::unique_ptr<GpuSensor> make_gpu_sensor(Device&) { return nullptr; }

#endif

}  // namespace strake::launch
