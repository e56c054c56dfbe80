// The CPU device: asynchronous in-order streams with one worker thread each, and events with CUDA's rules.
// A real backend, not a stand-in: all overlap logic runs on it, under ThreadSanitizer too.
#pragma once

#include <memory>

#include "runtime/device/device.h"

namespace strake {

// Streams keep a pointer to the device: destroy them first.
std::unique_ptr<Device> make_cpu_device();

}  // namespace strake
