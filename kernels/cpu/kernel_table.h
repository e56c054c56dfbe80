// What the CPU device runs, as a table of functions on plain arrays: starts as the reference; the vector code
// (cpu/vector/, f32) and oneDNN put their own functions in. Tests run every table against the reference in double.
//
// Threads: functions of a table may run on any thread; tables are constant once made.
#pragma once

#include <string>
#include <vector>

#include "kernels/cpu/attention.h"

namespace strake::kernels::cpu {

template <typename T>
struct KernelTable {
  decltype(&reference::attention_forward<T>) attention_forward = reference::attention_forward<T>;
  decltype(&reference::attention_backward<T>) attention_backward = reference::attention_backward<T>;
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
