// pause_stream: from the body of an operation, keeps its stream (and nothing else) busy for a while: a sleep of the CPU
// stream's worker, a kernel of one block on a GPU.
#pragma once

#include <chrono>

#include "runtime/device/device.h"

namespace strake::kernels {

void pause_stream(DeviceKind kind, NativeStream native, std::chrono::nanoseconds duration);

}  // namespace strake::kernels
