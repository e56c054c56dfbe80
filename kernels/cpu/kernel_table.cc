#include "kernels/cpu/kernel_table.h"

#include "kernels/cpu/vector/instruction_sets.h"

namespace strake::kernels::cpu {
namespace {

std::vector<NamedKernelTable> make_f32_kernel_tables() {
  std::vector<NamedKernelTable> tables;
  const auto add = [&](std::string_view name, void (*put_vector_code)(KernelTable<float>&)) {
    KernelTable<float>& table = tables.emplace_back(NamedKernelTable{std::string(name), {}}).table;
    if (put_vector_code != nullptr) put_vector_code(table);
  };
#if STRAKE_VECTOR_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) add("avx512", avx512::put_vector_code);
  if (__builtin_cpu_supports("x86-64-v3")) add("avx2", avx2::put_vector_code);
#endif
  add("baseline", baseline::put_vector_code);
  add("reference", nullptr);
#if STRAKE_ONEDNN
  tables.front().name += "+onednn";
#endif
  return tables;
}

}  // namespace

const std::vector<NamedKernelTable>& f32_kernel_tables() {
  static const std::vector<NamedKernelTable> tables = make_f32_kernel_tables();
  return tables;
}

template <>
const KernelTable<float>& kernel_table<float>() {
  return f32_kernel_tables().front().table;
}

template <>
const KernelTable<double>& kernel_table<double>() {
  static const KernelTable<double> table;
  return table;
}

}  // namespace strake::kernels::cpu
