// The device of this rank, and the communicator that fits it.
// Threads: the training thread. Errors: ConfigError if run.device asks for what is not here; DeviceError, CommError.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "comm/control.h"
#include "launch/config.h"
#include "launch/rank_environment.h"
#include "runtime/device/device.h"
#include "runtime/device/gpu_facts.h"

namespace strake::launch {

// run.device: auto takes a GPU of its own for each rank of this machine if there are that many, else the CPU.
// deterministic: kernels that repeat their bits.
std::unique_ptr<Device> make_device(const Config& config, const RankEnvironment& environment);

// Collective over all ranks of `control`. `host`: the communicator for CPU devices, kept if `device` is one or there is
// one rank; several GPUs talk through NCCL.
std::unique_ptr<comm::Communicator> make_communicator(Device& device, comm::Control& control,
                                                      std::unique_ptr<comm::Communicator> host);

// Dense matmul rate in FLOP/s that MFU is a share of. GPUs: the vendor's bf16 figure; CPU: measured. 0: not known.
double peak_flops(Device& device);

// The GPUs that this program can use, or why there are none.
GpuMachine read_gpus();
// Reads the GPU behind `device`; null for the CPU device, or if the driver does not tell.
std::unique_ptr<GpuSensor> make_gpu_sensor(Device& device);

}  // namespace strake::launch
