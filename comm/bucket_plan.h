// BucketPlan: which gradients are reduced together, and when. A pure value: the same parameters and
// sizes give the same plan on every rank, before step 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/device/param_spec.h"

namespace strake::comm {

struct Bucket {
  std::int64_t begin_elems;  // range of the flat gradient arena, alignment gaps included
  std::int64_t end_elems;
  ParamId first;             // parameters first..last, in the order their gradients become final
  ParamId last;
};

struct BucketPlan {
  std::vector<Bucket> buckets;  // in launch order; consecutive, together the whole arena
  DType wire;                   // element type of the reduction
  std::string describe() const;  // one line a bucket
};

// Cuts the layout into buckets of at most `bucket_bytes` (a parameter larger than that is a bucket of
// its own), in ready order. The first bucket is cut at a quarter of the size, so that reduction starts early.
// Parameters whose gradient is only final at the end of backward (`last_group`, how many at the end of the
// layout: the tied embedding) get a bucket of their own: it is structurally exposed and must stay small.
// REQUIRES: bucket_bytes > 0.
BucketPlan plan_buckets(const ParamLayout& layout, DType wire, std::int64_t bucket_bytes, std::size_t last_group);

}  // namespace strake::comm
