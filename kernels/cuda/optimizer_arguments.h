// Arguments of the CUDA optimizer's kernels, worked out on the host. Plain C++: for nvcc, and for tests on machines
// without CUDA.
//
// Threads: values. Errors: sizes that the fields cannot hold are programmer's errors: models that have them are refused
// before anything is planned (kernels/device_limits.h).
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/cuda/grid.h"
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

// Segments that follow each other in the arena, in order; a launch each for more than a table holds. Travels as a
// kernel argument, of which CUDA takes 32764 bytes: no table in device memory to keep in step.
constexpr int kMaxSegments = 1536;
struct SegmentTable {
  std::int32_t segments = 0;
  std::uint32_t first_block = 0, blocks = 0;  // of the norm blocks of all tables
  std::uint32_t first_group = 0, groups = 0;  // of the arena: up to where the next table's begin
  Segment table[kMaxSegments] = {};
};
static_assert(sizeof(SegmentTable) < 32764 - 256);

// Of an arena of `flat_elems`: tables cover all its groups, gaps with the segment before. REQUIRES: segments ascend.
inline std::vector<SegmentTable> segment_tables(std::span<const FlatSegment> segments, std::int64_t flat_elems) {
  STRAKE_CHECK(flat_elems % kGroupElems == 0, "an arena is whole groups");
  STRAKE_CHECK(flat_elems / kGroupElems <= std::numeric_limits<std::uint32_t>::max(), "groups are counted in 32 bits");
  const auto all_groups = static_cast<std::uint32_t>(flat_elems / kGroupElems);
  std::vector<SegmentTable> tables;
  std::int64_t blocks = 0, end = 0;
  for (const FlatSegment& segment : segments) {
    STRAKE_CHECK(segment.begin_elems % kGroupElems == 0, "segments begin with a group");
    STRAKE_CHECK(segment.begin_elems >= end, "segments ascend");
    end = segment.begin_elems + segment.size_elems;
    STRAKE_CHECK(end <= flat_elems, "a segment lies in the arena");
    const auto group = static_cast<std::uint32_t>(segment.begin_elems / kGroupElems);
    if (tables.empty()) {
      tables.emplace_back();
    } else if (tables.back().segments == kMaxSegments) {
      tables.back().groups = group - tables.back().first_group;
      SegmentTable& next = tables.emplace_back();
      next.first_group = group;
      next.first_block = static_cast<std::uint32_t>(blocks);
    }
    SegmentTable& to = tables.back();
    to.table[to.segments++] = {.elems = static_cast<std::uint64_t>(segment.size_elems),
                               .weight_decay = segment.weight_decay ? 1u : 0u,
                               .first_group = group,
                               .first_block = static_cast<std::uint32_t>(blocks)};
    blocks += norm_blocks(segment.size_elems);
    STRAKE_CHECK(blocks <= kMostBlocks, "more norm blocks than a grid can have");
    to.blocks = static_cast<std::uint32_t>(blocks) - to.first_block;
  }
  if (!tables.empty()) tables.back().groups = all_groups - tables.back().first_group;
  return tables;
}

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
