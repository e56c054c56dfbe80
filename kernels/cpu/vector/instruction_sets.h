// The vector code of the CPU kernels, compiled once for each instruction set (kernels/CMakeLists.txt). The choice is
// made at run time by f32_kernel_tables(): one program runs on every x86-64.
#pragma once

#include "kernels/cpu/kernel_table.h"

namespace strake::kernels::cpu {

// Each puts the vector functions into a table. REQUIRES: the CPU has the instruction set to run them.
namespace baseline {
void put_vector_code(KernelTable<float>& table);
}
#if STRAKE_VECTOR_X86
namespace avx2 {
void put_vector_code(KernelTable<float>& table);
}
namespace avx512 {
void put_vector_code(KernelTable<float>& table);
}
#endif

}  // namespace strake::kernels::cpu
