// Nvml: the driver's own account of this machine's GPUs: versions, clocks, power, temperature, links.
//
// The library comes with the driver, not with the toolkit, so it is loaded when the program runs and its few functions
// are declared in nvml.cc: nothing links it. GPUs are named by PCI bus id, because its own numbers take no
// account of CUDA_VISIBLE_DEVICES.
// Threads: any. Errors: none: without the library, or where it does not know, facts are absent.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/device/gpu_facts.h"

namespace strake {

class Nvml {
 public:
  // Nothing without a driver. `library`: its name or path.
  static std::optional<Nvml> load(const char* library = "libnvidia-ml.so.1");
  Nvml(Nvml&&) noexcept;
  Nvml& operator=(Nvml&&) noexcept;
  ~Nvml();

  // "580.159.04"; empty: not known.
  std::string driver_version() const;
  // Adds what it knows to the facts of the GPU with facts.pci_bus_id.
  void complete(GpuFacts& facts) const;
  // How two GPUs reach each other, by NVLink or PCIe.
  GpuLink link(const GpuFacts& first, const GpuFacts& second) const;
  // What the process with this number takes on a GPU, as all of its threads. Absent if the driver does not list it.
  std::optional<std::size_t> memory_of_process(const std::string& pci_bus_id, unsigned pid) const;
  // Null if the GPU is not known. Keeps the library loaded.
  std::unique_ptr<GpuSensor> sensor(const std::string& pci_bus_id) const;

 private:
  class Library;
  class Sensor;
  explicit Nvml(std::shared_ptr<const Library> library) : library_(std::move(library)) {}

  std::shared_ptr<const Library> library_;  // shared with sensors, which may outlive this object
};

}  // namespace strake
