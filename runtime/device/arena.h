// Memory of a rank: planned first, allocated once, never inside a step.
//
// An Arena is one named region. While a step is being planned it only hands out offsets (`reserve`);
// `allocate` then takes all of its bytes from the device at once. Tensors are (arena, offset, shape):
// they exist before the memory does and are resolved to an address when an operation runs.
//
// Threads: the training thread plans and allocates; any operation may read `base()` afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace strake {

class Device;

// Memory that operations see. The host must not dereference it; only code in a backend's folder
// (runtime/device/cpu/cpu_memory.h, cuda/) may turn it into a pointer.
struct DeviceAddress {
  std::uintptr_t value = 0;
};

enum class MemoryKind {
  kDevice,  // lives on the device
  kHost,    // lives in host memory, page-locked where the backend needs it for asynchronous copies
};

class Arena {
 public:
  // Every reservation starts at a multiple of this, so that vector loads and DMA never straddle.
  static constexpr std::size_t kAlignmentBytes = 256;

  Arena(std::string name, MemoryKind kind) : name_(std::move(name)), kind_(kind) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Sets aside `size_bytes` and returns their offset. REQUIRES: not allocated yet.
  std::size_t reserve(std::size_t size_bytes);
  // Takes the planned bytes from `device`, filled with zero. Throws OutOfMemoryError naming arena and bytes.
  // REQUIRES: not allocated yet; `device` outlives the arena.
  void allocate(Device& device);

  const std::string& name() const { return name_; }
  MemoryKind kind() const { return kind_; }
  std::size_t size_bytes() const { return size_bytes_; }
  bool allocated() const { return device_ != nullptr; }
  // REQUIRES: allocated.
  DeviceAddress base() const;

 private:
  std::string name_;
  MemoryKind kind_;
  std::size_t size_bytes_ = 0;
  Device* device_ = nullptr;
  DeviceAddress base_;
};

}  // namespace strake
