#include "comm/bucket_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace strake::comm {

BucketPlan plan_buckets(const ParamLayout& layout, DType wire, std::int64_t bucket_bytes) {
  STRAKE_CHECK(layout.size() > 0, "a plan of no parameters");
  STRAKE_CHECK(bucket_bytes > 0, "buckets need a size");
  const std::int64_t cap_elems = bucket_bytes / static_cast<std::int64_t>(size_bytes(wire));

  BucketPlan plan{.buckets = {}, .wire = wire};
  for (const Section& section : layout.sections()) {
    for (std::size_t i = index_of(section.first); i <= index_of(section.last); ++i) {
      const auto param = static_cast<ParamId>(i);
      // The gap behind a parameter belongs to it.
      const std::int64_t end =
          param == section.last ? section.end_elems : layout.offset_elems(static_cast<ParamId>(i + 1));
      const bool first_bucket = plan.buckets.size() == 1;
      const bool fits = !plan.buckets.empty() && param != section.first &&
                        end - plan.buckets.back().begin_elems <= (first_bucket ? cap_elems / 4 : cap_elems);
      if (fits) {
        plan.buckets.back().end_elems = end;
        plan.buckets.back().last = param;
      } else {
        plan.buckets.push_back({.begin_elems = layout.offset_elems(param),
                                .end_elems = end,
                                .first = param,
                                .last = param,
                                .final_at_end = section.final_at_end});
      }
    }
  }
  return plan;
}

BucketPlan plan_pieces(ParamLayout& layout, DType wire, std::int64_t bucket_bytes, int pieces) {
  BucketPlan plan = plan_buckets(layout, wire, bucket_bytes);
  std::vector<ParamId> ends;
  for (const Bucket& bucket : plan.buckets) ends.push_back(bucket.last);
  layout.pad_behind(ends, pieces * ParamLayout::kAlignmentElems);
  for (std::size_t i = 0; i < plan.buckets.size(); ++i) {
    Bucket& bucket = plan.buckets[i];
    bucket.begin_elems = layout.offset_elems(bucket.first);
    bucket.end_elems =
        i + 1 < plan.buckets.size() ? layout.offset_elems(plan.buckets[i + 1].first) : layout.total_elems();
  }
  return plan;
}

std::int64_t BucketPlan::largest_elems() const {
  std::int64_t largest = 0;
  for (const Bucket& bucket : buckets) largest = std::max(largest, bucket.elems());
  return largest;
}

std::int64_t BucketPlan::bytes(const Bucket& bucket) const {
  return bucket.elems() * static_cast<std::int64_t>(size_bytes(wire));
}

std::int64_t BucketPlan::bytes() const {
  std::int64_t sum = 0;
  for (const Bucket& bucket : buckets) sum += bytes(bucket);
  return sum;
}

std::int64_t BucketPlan::bytes_at_end() const {
  std::int64_t sum = 0;
  for (const Bucket& bucket : buckets) sum += bucket.final_at_end ? bytes(bucket) : 0;
  return sum;
}

std::string BucketPlan::describe() const {
  std::string text;
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    const Bucket& bucket = buckets[i];
    text += fmt::format("bucket {:3}: parameters {}..{}, elements {}..{}, {:.3f} MiB {}{}\n", i, index_of(bucket.first),
                        index_of(bucket.last), bucket.begin_elems, bucket.end_elems,
                        static_cast<double>(bytes(bucket)) / (1 << 20), name_of(wire),
                        bucket.final_at_end ? ", final when backward ends" : "");
  }
  return text;
}

std::string BucketPlan::describe_at_end() const {
  std::vector<std::size_t> at_end;
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    if (buckets[i].final_at_end) at_end.push_back(i);
  }
  if (at_end.empty()) return {};
  constexpr double kMib = 1 << 20;
  return fmt::format("bucket{} {}, {:.3f} of {:.3f} MiB", at_end.size() == 1 ? "" : "s", fmt::join(at_end, ", "),
                     static_cast<double>(bytes_at_end()) / kMib, static_cast<double>(bytes()) / kMib);
}

}  // namespace strake::comm
