#include "launch/devices.h"

#include <fmt/format.h>

#include "launch/matmul_rate.h"
#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"

#ifdef STRAKE_HAS_CUDA
#include "comm/nccl/nccl_communicator.h"
#include "kernels/cuda/make_kernels.h"
#include "runtime/device/cuda/cuda_device.h"
#endif

namespace strake::launch {

#ifdef STRAKE_HAS_CUDA

std::unique_ptr<Device> make_device(const Config& config, const RankEnvironment& environment) {
  const int gpus = config.run.device == DeviceChoice::kCpu ? 0 : cuda_device_number();
  // Under SLURM each rank may see its own GPU only, as number 0.
  const bool enough = gpus >= environment.local_ranks || (gpus == 1 && environment.local_rank == 0);
  if (config.run.device == DeviceChoice::kCuda && !enough) {
    throw ConfigError(
        gpus == 0 ? fmt::format("run.device = cuda: {}; set run.device = auto or cpu", cuda_unavailable_reason())
                  : fmt::format("run.device = cuda: {} ranks on this machine, but {} GPUs; start fewer ranks",
                                environment.local_ranks, gpus));
  }
  if (!enough) return make_cpu_device();
  const int ordinal = environment.local_rank % gpus;
  select_cuda_device(ordinal);
  return make_cuda_device(ordinal, kernels::cuda::make_kernels(config.train.deterministic));
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
  if (facts.compute_capability == 90) return facts.multiprocessors >= 128 ? 989.4e12 : 756e12;  // H100, H200 SXM; PCIe
  if (facts.compute_capability == 80) return 312e12;                                            // A100
  return 0;
}

GpuMachine read_gpus() { return cuda_machine(); }
std::unique_ptr<GpuSensor> make_gpu_sensor(Device& device) {
  return device.kind() == DeviceKind::kCuda ? make_cuda_sensor() : nullptr;
}

#else

std::unique_ptr<Device> make_device(const Config& config, const RankEnvironment&) {
  if (config.run.device == DeviceChoice::kCuda) {
    throw ConfigError(
        "run.device = cuda: this program was built without CUDA; set run.device = auto or cpu, or build with "
        "STRAKE_CUDA=ON");
  }
  return make_cpu_device();
}
std::unique_ptr<comm::Communicator> make_communicator(Device&, comm::Control&,
                                                      std::unique_ptr<comm::Communicator> host) {
  return host;
}
double peak_flops(Device& device) { return measure_matmul_rate(device); }
GpuMachine read_gpus() { return {.missing = "not built in"}; }
std::unique_ptr<GpuSensor> make_gpu_sensor(Device&) { return nullptr; }

#endif

}  // namespace strake::launch
