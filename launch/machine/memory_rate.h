// How fast this device copies within its own memory, and how much of it its caches hold: what operations that compute
// little can be compared with.
#pragma once

#include <cstddef>

#include "runtime/device/device.h"

namespace strake::launch {

// Bytes/s read and written together, by the best of several copies of 128 MiB (1 GiB on a GPU), far more than caches
// hold. Takes twice that memory for some 0.1 s; before training. Throws OutOfMemoryError.
double measure_copy_rate(Device& device);

// Of the CPU's largest cache; 0: not known.
std::size_t cpu_cache_bytes();

}  // namespace strake::launch
