#include "launch/job/devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "comm/staged/staged_communicator.h"
#include "launch/job/comm_switches.h"
#include "launch/machine/matmul_rate.h"
#include "launch/machine/memory_rate.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/host_name.h"
#include "runtime/device/cpu/cpu_device.h"

#ifdef STRAKE_HAS_CUDA
#include "comm/nccl/nccl_communicator.h"
#include "kernels/cuda/make_kernels.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/cuda/gpu_memory.h"
#endif

namespace strake::launch {
namespace {

// "rank 3 on host n7", or just the host where there is one rank.
std::string rank_name(std::size_t rank, std::span<const GpuOffer> offers) {
  const std::string& host = offers[rank].host;
  return offers.size() == 1 ? fmt::format("host {}", host) : fmt::format("rank {} on host {}", rank, host);
}

// Why not every rank has a GPU, of its own unless they may share; empty: each has.
std::string why_no_gpus(std::span<const GpuOffer> offers, GpuSharing sharing) {
  std::map<std::string_view, std::size_t> rank_of;  // by GPU
  for (std::size_t rank = 0; rank < offers.size(); ++rank) {
    const GpuOffer& offer = offers[rank];
    if (offer.uuid.empty())
      return fmt::format("{} has no GPU to compute on: {}", rank_name(rank, offers), offer.missing);
    const auto [taken, is_new] = rank_of.emplace(offer.uuid, rank);
    if (!is_new && sharing == GpuSharing::kRefused) {
      return fmt::format(
          "ranks {} and {} would share one GPU of host {}: start a rank for each GPU at most, or set comm.backend = "
          "staged, which is slow",
          taken->second, rank, offer.host);
    }
  }
  return "";
}

}  // namespace

std::string GpuOffer::to_text() const {
  // The host's name and the driver's words may be any bytes.
  return nlohmann::json{uuid, missing, host}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

GpuOffer GpuOffer::from_text(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  STRAKE_CHECK(json.is_array() && json.size() == 3, "text of to_text: " + text);
  return {json[0], json[1], json[2]};
}

ChosenDevice choose_device(DeviceChoice choice, std::span<const GpuOffer> offers, std::string_view gpus_before,
                           std::string_view setting, GpuSharing sharing) {
  if (choice == DeviceChoice::kCpu) return {DeviceKind::kCpu, fmt::format("{}cpu", setting)};
  std::string missing = why_no_gpus(offers, sharing);
  if (missing.empty()) return {DeviceKind::kCuda, ""};
  std::string because;  // GPUs are wanted
  const auto has_gpu =
      std::find_if(offers.begin(), offers.end(), [](const GpuOffer& offer) { return !offer.uuid.empty(); });
  if (choice == DeviceChoice::kCuda) {
    because = fmt::format("{}cuda", setting);
  } else if (!gpus_before.empty()) {
    because = fmt::format("{} was computed on GPUs", gpus_before);
  } else if (has_gpu != offers.end()) {
    because = fmt::format("{} has one", rank_name(static_cast<std::size_t>(has_gpu - offers.begin()), offers));
  } else {
    return {DeviceKind::kCpu, std::move(missing)};
  }
  throw ConfigError(fmt::format("{} ({}). To compute on the CPU, on purpose, set {}cpu", missing, because, setting));
}

bool shares_gpu(std::size_t rank, std::span<const GpuOffer> offers) {
  const std::string& uuid = offers[rank].uuid;
  return !uuid.empty() && std::ranges::count(offers, uuid, &GpuOffer::uuid) > 1;
}

void require_backend_for(CommBackend backend, const ChosenDevice& device) {
  if (backend != CommBackend::kNccl || device.kind == DeviceKind::kCuda) return;
  throw ConfigError(fmt::format(
      "comm.backend = nccl: NCCL connects GPUs, and the ranks compute on the CPU ({}); set comm.backend = auto",
      device.no_gpus_because));
}

std::unique_ptr<comm::Communicator> make_communicator(Device& device, comm::Control& control,
                                                      std::unique_ptr<comm::Communicator> host,
                                                      const Config::Comm& comm) {
  if (control.size() == 1) return host;
  if (comm.backend == CommBackend::kStaged) return std::make_unique<comm::StagedCommunicator>(std::move(host), device);
#ifdef STRAKE_HAS_CUDA
  if (device.kind() == DeviceKind::kCuda) return comm::make_nccl_communicator(control, nccl_options(comm));
#endif
  return host;
}

MemoryRates memory_rates(Device& device) {
  const double copied = measure_copy_rate(device);
  const std::optional<GpuFacts> gpu = current_gpu(device);
  if (!gpu.has_value()) return {copied, copied, cpu_cache_bytes()};
  // Double data rate: the clock counts cycles.
  const double peak = 2e6 * gpu->max_memory_clock_mhz.value_or(0) * gpu->memory_bus_bits / 8;
  return {peak > 0 ? peak : copied, copied, gpu->l2_bytes};
}

std::string why_slow(const comm::Communicator& communicator) {
  if (communicator.backend() != "staged") return "";
  return "comm.backend = staged: what ranks send each other goes through host memory, which is slow: for tests, and "
         "for "
         "trying several ranks on one GPU";
}

#ifdef STRAKE_HAS_CUDA

namespace {

// Without the host.
GpuOffer look_for_gpu(const RankEnvironment& environment) {
  try {
    const int gpus = cuda_device_number();
    if (gpus == 0) return {"", cuda_unavailable_reason(), ""};
    const int ordinal = environment.local_rank % gpus;
    select_cuda_device(ordinal);
    const GpuFacts facts = cuda_facts(ordinal);
    if (!kernels::cuda::has_code_for_current_gpu()) {
      return {"",
              fmt::format("this program holds no code for {} (compute capability {}.{}); build it with "
                          "CMAKE_CUDA_ARCHITECTURES={}",
                          facts.name, facts.compute_capability / 10, facts.compute_capability % 10,
                          facts.compute_capability),
              ""};
    }
    return {facts.uuid, "", ""};
  } catch (const DeviceError& error) {
    return {"", error.what(), ""};
  }
}

}  // namespace

GpuOffer offer_gpu(DeviceChoice choice, const RankEnvironment& environment) {
  GpuOffer offer = choice == DeviceChoice::kCpu ? GpuOffer{"", "none is asked for", ""} : look_for_gpu(environment);
  offer.host = host_name();
  return offer;
}

void require_switches(const Config::Comm& comm, const ChosenDevice& device, int ranks) {
  if (device.kind != DeviceKind::kCuda || ranks == 1) return;
  Config::Comm asked = comm;
  if (comm.backend == CommBackend::kStaged) asked = {.spare_sms = comm.spare_sms};
  const int multiprocessors = cuda_facts(current_cuda_device()).multiprocessors;
  const std::string why = unserved_switches(asked, comm::nccl_usable_version(), multiprocessors);
  if (!why.empty()) throw ConfigError(why);
}

std::unique_ptr<Device> make_device(DeviceKind kind, const DeviceOptions& options) {
  if (kind != DeviceKind::kCuda) return make_cpu_device();
  const int ordinal = current_cuda_device();
  if (options.shared) cuda::note_gpu_is_shared(ordinal);
  return make_cuda_device(ordinal, kernels::cuda::make_kernels(options.deterministic),
                          options.registrable ? comm::nccl_memory() : cuda_memory());
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

std::optional<GpuFacts> current_gpu(const Device& device) {
  return device.kind() == DeviceKind::kCuda ? std::optional(cuda_facts(current_cuda_device())) : std::nullopt;
}
std::string gpu_link_path(const std::string& pci_bus_id, const std::string& other) {
  return cuda_link(pci_bus_id, other).path;
}
GpuMachine read_gpus() { return cuda_machine(); }
std::unique_ptr<GpuSensor> make_gpu_sensor(Device& device) {
  return device.kind() == DeviceKind::kCuda ? make_cuda_sensor() : nullptr;
}

#else

GpuOffer offer_gpu(DeviceChoice, const RankEnvironment&) {
  return {"", "this program was built without CUDA; build it with STRAKE_CUDA=ON", host_name()};
}
void require_switches(const Config::Comm&, const ChosenDevice&, int) {}
std::unique_ptr<Device> make_device(DeviceKind, const DeviceOptions&) { return make_cpu_device(); }
double peak_flops(Device& device) { return measure_matmul_rate(device); }
std::optional<GpuFacts> current_gpu(const Device&) { return std::nullopt; }
std::string gpu_link_path(const std::string&, const std::string&) { return "unknown"; }
GpuMachine read_gpus() { return {.missing = "not built in"}; }
std::unique_ptr<GpuSensor> make_gpu_sensor(Device&) { return nullptr; }

#endif

}  // namespace strake::launch
