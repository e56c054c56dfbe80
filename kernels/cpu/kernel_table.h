// What the CPU device runs, as a table of functions on plain arrays: starts as the reference; the vector code
// (cpu/vector/, f32) and oneDNN put their own functions in. Tests run every table against the reference in double.
//
// Threads: functions of a table may run on any thread; tables are constant once made.
#pragma once

#include <string>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/cross_entropy.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/fingerprint.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/optimizer.h"

namespace strake::kernels::cpu {

template <typename T>
struct KernelTable {
  decltype(&reference::linear_forward<T>) linear_forward = reference::linear_forward<T>;
  decltype(&reference::linear_backward_weight<T>) linear_backward_weight = reference::linear_backward_weight<T>;
  decltype(&reference::linear_backward_input<T>) linear_backward_input = reference::linear_backward_input<T>;
  decltype(&reference::column_sums<T>) column_sums = reference::column_sums<T>;
  decltype(&reference::attention_forward<T>) attention_forward = reference::attention_forward<T>;
  decltype(&reference::attention_backward<T>) attention_backward = reference::attention_backward<T>;
  decltype(&reference::gelu_forward<T>) gelu_forward = reference::gelu_forward<T>;
  decltype(&reference::gelu_backward<T>) gelu_backward = reference::gelu_backward<T>;
  decltype(&reference::add<T>) add = reference::add<T>;
  decltype(&reference::embedding_forward<T>) embedding_forward = reference::embedding_forward<T>;
  decltype(&reference::embedding_backward_tokens<T>) embedding_backward_tokens =
      reference::embedding_backward_tokens<T>;
  decltype(&reference::embedding_backward_positions<T>) embedding_backward_positions =
      reference::embedding_backward_positions<T>;
  decltype(&reference::cross_entropy_forward_backward<T>) cross_entropy_forward_backward =
      reference::cross_entropy_forward_backward<T>;
  decltype(&reference::cross_entropy_forward<T>) cross_entropy_forward = reference::cross_entropy_forward<T>;
  decltype(&reference::accumulate_loss<T>) accumulate_loss = reference::accumulate_loss<T>;
  decltype(&reference::sum_of_squares<T>) sum_of_squares = reference::sum_of_squares<T>;
  decltype(&reference::adamw<T>) adamw = reference::adamw<T>;
  decltype(&reference::fingerprint) fingerprint = reference::fingerprint;
};

struct NamedKernelTable {
  std::string name;  // "avx512", "avx2", "baseline", "reference"; the first has "+onednn" behind it where built in
  KernelTable<float> table;
};

// Every f32 table that this CPU can run, fastest first.
const std::vector<NamedKernelTable>& f32_kernel_tables();

// The table that operations run: the first of f32_kernel_tables(), or the reference for f64.
template <typename T>
const KernelTable<T>& kernel_table();
template <>
const KernelTable<float>& kernel_table<float>();
template <>
const KernelTable<double>& kernel_table<double>();

}  // namespace strake::kernels::cpu
