// Arguments of the CUDA optimizer's kernels, worked out on the host. Plain C++: for nvcc, and for tests on machines
// without CUDA.
//
// Threads: values. Errors: sizes that the fields cannot hold are programmer's errors: models that have them are refused
// before anything is planned (kernels/device_limits.h).
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cuda/grid.h"
#include "kernels/device_limits.h"
#include "kernels/optimizer.h"
#include "runtime/base/check.h"

namespace strake::kernels::cuda {

constexpr std::int64_t kGroupElems = 128;

// A range of groups of the flat arenas that belongs to one parameter.
struct Segment {
  std::uint64_t elems : 63;  // of the parameter, without the gap behind it
  std::uint64_t weight_decay : 1;
  std::uint32_t first_group;
  std::uint32_t first_block;  // of the norm blocks of all segments
};
static_assert(sizeof(Segment) == 16);

// Travels as a kernel argument, of which CUDA takes 32764 bytes: no table in device memory to keep in step.
constexpr int kMaxSegments = 1536;
static_assert(kMaxSegments == limits_of(DeviceKind::kCuda, DType::kF32).most_segments);
struct SegmentTable {
  std::int32_t segments = 0;
  std::uint32_t blocks = 0;  // norm blocks so far
  std::uint32_t groups = 0;  // of the whole arena
  Segment table[kMaxSegments] = {};

  // Of an arena of `flat_elems`.
  explicit SegmentTable(std::int64_t flat_elems) {
    STRAKE_CHECK(flat_elems % kGroupElems == 0, "an arena is whole groups");
    STRAKE_CHECK(flat_elems / kGroupElems <= std::numeric_limits<std::uint32_t>::max(),
                 "groups are counted in 32 bits");
    groups = static_cast<std::uint32_t>(flat_elems / kGroupElems);
  }
  void add(std::int64_t begin_elems, std::int64_t size_elems, bool weight_decay) {
    STRAKE_CHECK(segments < kMaxSegments, "more parameters than the table of the CUDA optimizer holds");
    STRAKE_CHECK(begin_elems % kGroupElems == 0, "segments begin with a group");
    STRAKE_CHECK(begin_elems / kGroupElems <= groups, "a segment lies in the arena");
    table[segments++] = {.elems = static_cast<std::uint64_t>(size_elems),
                         .weight_decay = weight_decay ? 1u : 0u,
                         .first_group = static_cast<std::uint32_t>(begin_elems / kGroupElems),
                         .first_block = blocks};
    const std::int64_t all = blocks + (size_elems + kNormBlockElems - 1) / kNormBlockElems;
    STRAKE_CHECK(all <= kMostBlocks, "more norm blocks than a grid can have");
    blocks = static_cast<std::uint32_t>(all);
  }
};

// AdamW's constants, worked out in double: in float 1 - beta2 is 1.3 % off at 0.999999.
struct AdamWConstants {
  float beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon, weight_decay;

  explicit AdamWConstants(const AdamWOptions& options)
      : beta1(static_cast<float>(options.beta1)),
        one_minus_beta1(static_cast<float>(1 - options.beta1)),
        beta2(static_cast<float>(options.beta2)),
        one_minus_beta2(static_cast<float>(1 - options.beta2)),
        epsilon(static_cast<float>(options.epsilon)),
        weight_decay(static_cast<float>(options.weight_decay)) {}
};

}  // namespace strake::kernels::cuda
