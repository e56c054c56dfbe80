#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/vector/kernels.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {

void put_vector_code(KernelTable<float>& table);

void put_vector_code(KernelTable<float>& table) {
  table.attention_forward = attention_forward;
  table.attention_backward = attention_backward;
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
