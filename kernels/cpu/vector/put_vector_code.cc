#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/vector/kernels.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {

void put_vector_code(KernelTable<float>& table);

// Products of matrices are oneDNN's; embedding and casts are bound by memory: the reference serves.
void put_vector_code(KernelTable<float>& table) {
  table.column_sums = column_sums;
  table.attention_forward = attention_forward;
  table.attention_backward = attention_backward;
  table.gelu_forward = gelu_forward;
  table.gelu_backward = gelu_backward;
  table.add = add;
  table.cross_entropy_forward_backward = cross_entropy_forward_backward;
  table.cross_entropy_forward = cross_entropy_forward;
  table.sum_of_squares = sum_of_squares;
  table.adamw = adamw;
  table.fingerprint = fingerprint;
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
