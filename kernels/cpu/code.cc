#include "kernels/cpu/code.h"

namespace strake::kernels {
namespace {

std::vector<CpuCode> find_all() {
  std::vector<CpuCode> all;
#if STRAKE_VECTOR_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) all.push_back({.vector = InstructionSet::kAvx512});
  if (__builtin_cpu_supports("x86-64-v3")) all.push_back({.vector = InstructionSet::kAvx2});
#endif
  all.push_back({.vector = InstructionSet::kBaseline});
  all.push_back({.vector = InstructionSet::kReference});
#if STRAKE_ONEDNN
  all.front().onednn = true;
#endif
  return all;
}

}  // namespace

const std::vector<CpuCode>& CpuCode::all() {
  static const std::vector<CpuCode> all = find_all();
  return all;
}

std::string CpuCode::name() const {
  constexpr const char* kNames[] = {"reference", "baseline", "avx2", "avx512"};
  return std::string(kNames[static_cast<std::size_t>(vector)]) + (onednn ? "+onednn" : "");
}

}  // namespace strake::kernels
