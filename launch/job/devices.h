// The device of this rank, and the communicator that fits it.
// Threads: the training thread. Errors: ConfigError if run.device asks for what is not here; DeviceError, CommError.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "comm/communicator.h"
#include "comm/control.h"
#include "launch/config.h"
#include "launch/job/rank_environment.h"
#include "runtime/device/device.h"
#include "runtime/device/gpu_facts.h"

namespace strake::launch {

// The GPU that a rank could compute on, as it tells the other ranks: each may see others, and whether two ranks would
// share one is known to all of them together only.
struct GpuOffer {
  std::string uuid;     // empty: none
  std::string missing;  // then: why
  std::string host;     // of the rank

  std::string to_text() const;
  static GpuOffer from_text(const std::string& text);  // REQUIRES: made by to_text
};
// Takes the GPUs of this machine in turn, by the local rank. Makes the GPU current for this thread. Throws nothing.
GpuOffer offer_gpu(DeviceChoice choice, const RankEnvironment& environment);

struct ChosenDevice {
  DeviceKind kind;
  std::string no_gpus_because;  // on the CPU
};
// May several ranks compute on one GPU?
enum class GpuSharing : bool { kRefused, kAllowed };
// What all ranks compute on: GPUs if each rank has one, of its own unless `sharing` says otherwise; the CPU if `choice`
// says so, or lets us choose and nothing speaks for GPUs: no rank has one, and `gpus_before` is empty, else what has
// computed on GPUs so far
// ("runs/a/ckpt/step-00000100"). One GPU that is missing must not put a job on CPUs that would take a hundred times as
// long: then, and if kCuda cannot be had, ConfigError naming rank and host. `setting`: how people say the choice.
// Pure, so that ranks that know the same choose the same.
ChosenDevice choose_device(DeviceChoice choice, std::span<const GpuOffer> offers, std::string_view gpus_before = "",
                           std::string_view setting = "run.device = ", GpuSharing sharing = GpuSharing::kRefused);
// Does another rank compute on the GPU that `rank` offers?
bool shares_gpu(std::size_t rank, std::span<const GpuOffer> offers);
// Throws ConfigError if what is to connect the ranks does not move the memory of their devices.
void require_backend_for(CommBackend backend, const ChosenDevice& device);

// Throws ConfigError if `comm` asks for what this rank's GPU or the NCCL that is loaded cannot serve. One rank asks for
// nothing.
void require_switches(const Config::Comm& comm, const ChosenDevice& device, int ranks);

// This rank's device of that kind: the GPU it has offered, or the CPU.
struct DeviceOptions {
  bool deterministic = false;  // kernels that repeat their bits
  bool shared = false;         // other ranks compute on the GPU too
  bool registrable = false;    // its memory can be registered with NCCL
};
std::unique_ptr<Device> make_device(DeviceKind kind, const DeviceOptions& options);

// Collective over all ranks of `control`. `host`: the communicator of host memory, kept if there is one rank; else what
// comm.backend says, of itself that one on CPU devices and NCCL between GPUs. `device` outlives what is made.
std::unique_ptr<comm::Communicator> make_communicator(Device& device, comm::Control& control,
                                                      std::unique_ptr<comm::Communicator> host,
                                                      const Config::Comm& comm);
// What people are told of a communicator that is slow by its kind; empty: it is not.
std::string why_slow(const comm::Communicator& communicator);

// Dense matmul rate in FLOP/s that MFU is a share of. GPUs: the vendor's bf16 figure; CPU: measured. 0: not known.
double peak_flops(Device& device);

// What moves between a device's memory and what computes.
struct MemoryRates {
  double peak_bytes_per_s = 0;  // GPUs: by the memory's clock and bus; where that is not known, and on the CPU: copied
  double copied_bytes_per_s = 0;  // measured: read and written
  std::size_t cache_bytes = 0;    // that may still hold what was written last; 0: not known

  bool peak_is_copied() const { return peak_bytes_per_s == copied_bytes_per_s; }
};
// Takes memory for a moment; before training.
MemoryRates memory_rates(Device& device);

// The GPU behind `device`; none: it is the CPU.
std::optional<GpuFacts> current_gpu(const Device& device);
// How two GPUs of this host reach each other, "NV18 through NVSwitch"; "unknown" if the driver does not tell.
std::string gpu_link_path(const std::string& pci_bus_id, const std::string& other);
// The GPUs that this program can use, or why there are none.
GpuMachine read_gpus();
// Reads the GPU behind `device`; null for the CPU device, or if the driver does not tell.
std::unique_ptr<GpuSensor> make_gpu_sensor(Device& device);

}  // namespace strake::launch
