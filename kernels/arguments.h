// What the headers of operations share. An operation is a value of arguments, checked and enqueued by the function
// beside it; on_cpu and on_cuda make its body for a device (kernels/launch.h).
#pragma once

#include "runtime/device/device.h"

namespace strake::kernels {

struct CpuCode;  // kernels/cpu/code.h

// What a gradient does with the value that is there.
enum class Accumulate : bool { kOverwrite = false, kAdd = true };

}  // namespace strake::kernels
