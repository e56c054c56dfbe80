// Matrix products of the CPU device by oneDNN, f32. Where it is not built in, the reference serves.
//
// Threads: any; each thread keeps its own compiled kernels. One thread computes: ranks, not cores, are the unit.
// Errors: DeviceError with oneDNN's status and the shape.
#pragma once

#include "kernels/cpu/kernel_table.h"

namespace strake::kernels::cpu {

void put_onednn_matmul(KernelTable<float>& table);

}  // namespace strake::kernels::cpu
