// CpuCode: which compiled version of an operation a CPU runs in f32: the reference, or the vector code (cpu/vector/) of
// an instruction set, and oneDNN for products of matrices. One program holds all of them. In f64 it is always the
// reference, the oracle of every other version: tests run each of CpuCode::all() against it.
//
// Threads: values; any. Errors: none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace strake::kernels {

enum class InstructionSet : std::uint8_t { kReference, kBaseline, kAvx2, kAvx512 };

struct CpuCode {
  InstructionSet vector = InstructionSet::kReference;  // an operation without vector code runs its reference
  bool onednn = false;

  // What this CPU can run, fastest first, the reference last.
  static const std::vector<CpuCode>& all();
  static CpuCode fastest() { return all().front(); }

  std::string name() const;  // "avx512+onednn", "avx2", "baseline", "reference"
};

}  // namespace strake::kernels
