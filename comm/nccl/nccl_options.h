// NcclOptions: how NCCL's collectives use the GPUs. A value, known in programs without CUDA too.
#pragma once

#include <cstdint>

namespace strake::comm {

// As it is: NCCL's own choice of everything. What is split from a group has its options.
struct NcclOptions {
  // CTAs (blocks of threads; a multiprocessor runs one) of a collective, at least and at most; 0: NCCL's choice.
  int min_ctas = 0, max_ctas = 0;
  enum class Buffers : std::uint8_t {
    kPlain,       // NCCL copies into and out of buffers of its own
    kRegistered,  // peers read and write registered memory itself, where NCCL can
    kSymmetric,   // registered memory is mapped by every GPU of the host at equal offsets, for kernels made for that
  } buffers = Buffers::kPlain;
  // Copy engines instead of multiprocessors where NCCL has that: all-gathers between symmetric buffers of one host.
  bool copy_engines = false;
};

// Versions as nccl_usable_version() counts: the first that serve registered and symmetric buffers and copy engines.
inline constexpr int kNcclWithRegistration = 21900, kNcclWithWindows = 22700, kNcclWithCopyEngines = 22800;

}  // namespace strake::comm
