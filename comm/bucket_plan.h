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
  ParamId first;  // parameters first..last, in the order their gradients become final
  ParamId last;
  bool final_at_end = false;  // its gradients are final only when backward ends: no computation of it hides them

  std::int64_t elems() const { return end_elems - begin_elems; }
};

struct BucketPlan {
  std::vector<Bucket> buckets;  // in launch order; consecutive, together the whole arena
  DType wire;                   // element type of the reduction
  std::int64_t largest_elems() const;
  std::int64_t bytes(const Bucket& bucket) const;  // on the wire
  std::int64_t bytes() const;                      // of all
  // Of those that are final only when backward ends: exposed by structure, whatever the link and the size of buckets.
  std::int64_t bytes_at_end() const;
  std::string describe() const;         // one line a bucket
  std::string describe_at_end() const;  // "bucket 7, 0.125 of 3.2 MiB"; empty: there is none
};

// Cuts the layout into buckets of at most `bucket_bytes`, alignment gaps included, in ready order. A parameter
// is never split: one larger than that is a bucket of its own. The first bucket is cut at a quarter of the
// size, so that reduction starts early. No bucket reaches over the end of a section: what is final only at the end of
// backward (a tied embedding) is structurally exposed and must not grow. A fraction of an element at the end of
// `bucket_bytes` is dropped.
// REQUIRES: a layout that is not empty; bucket_bytes > 0.
BucketPlan plan_buckets(const ParamLayout& layout, DType wire, std::int64_t bucket_bytes);

// The same cut, in a layout that is padded so that every bucket is `pieces` equal pieces of whole alignments
// (ParamLayout::kAlignmentElems): what ranks own of it.
BucketPlan plan_pieces(ParamLayout& layout, DType wire, std::int64_t bucket_bytes, int pieces);

}  // namespace strake::comm
