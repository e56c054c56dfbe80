#include "comm/exposure.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "runtime/base/check.h"

namespace strake::comm {
namespace {

std::int64_t layout_bytes(const ParamLayout& layout, DType wire) {
  return layout.total_elems() * static_cast<std::int64_t>(size_bytes(wire));
}

}  // namespace

double ReductionCost::of(std::int64_t bytes) const {
  STRAKE_CHECK(!by_size.empty(), "nothing is known of what reductions take");
  const auto above = std::lower_bound(by_size.begin(), by_size.end(), bytes,
                                      [](const TimedReduction& each, std::int64_t size) { return each.bytes < size; });
  if (above == by_size.begin()) return above->ms;
  const TimedReduction& below = *std::prev(above);
  if (above == by_size.end()) return below.ms * static_cast<double>(bytes) / static_cast<double>(below.bytes);
  const double share = static_cast<double>(bytes - below.bytes) / static_cast<double>(above->bytes - below.bytes);
  return below.ms + share * (above->ms - below.ms);
}

ReductionCost cost_of(std::span<const TimedReduction> measured) {
  struct OfSize {
    double ms = 0;
    int count = 0;
  };
  std::map<std::int64_t, OfSize> sizes;
  for (const TimedReduction& each : measured) {
    STRAKE_CHECK(each.bytes > 0 && each.ms > 0, "a reduction of no bytes or of no time");
    OfSize& size = sizes[each.bytes];
    size.ms += each.ms;
    ++size.count;
  }
  ReductionCost out;
  for (const auto& [bytes, size] : sizes) out.by_size.push_back({bytes, size.ms / size.count});
  return out;
}

double exposed_ms(const BucketPlan& plan, const BackwardTimes& backward, const ReductionCosts& costs) {
  STRAKE_CHECK(index_of(plan.buckets.back().last) < backward.final_ms.size(), "gradients without a time");
  const auto dilated = [&](double ms) { return backward.begin_ms + backward.dilation * (ms - backward.begin_ms); };
  const double end_ms = dilated(backward.end_ms);
  double reduced_ms = 0;
  for (const Bucket& bucket : plan.buckets) {
    const std::int64_t bytes = plan.bytes(bucket);
    const double begin_ms = std::max(reduced_ms, dilated(backward.final_ms[index_of(bucket.last)]));
    const double beside_ms = costs.beside.of(bytes);
    // What is left of it when backward ends goes on alone.
    double left = begin_ms < end_ms ? 0 : 1;
    if (begin_ms + beside_ms > end_ms && begin_ms < end_ms) left = 1 - (end_ms - begin_ms) / beside_ms;
    reduced_ms = begin_ms + (1 - left) * beside_ms + left * costs.alone.of(bytes);
  }
  return std::max(0.0, reduced_ms - end_ms);
}

BucketSize least_exposed(const ParamLayout& layout, DType wire, const BackwardTimes& backward,
                         const ReductionCosts& costs, double indifferent_ms) {
  constexpr double kSmallestBytes = 32 << 10;
  const std::int64_t one_bucket_bytes = 4 * layout_bytes(layout, wire);  // the first is a quarter
  std::vector<BucketSize> sizes;
  for (int i = 0; sizes.empty() || sizes.back().bytes < one_bucket_bytes; ++i) {
    const auto bytes = std::min<std::int64_t>(std::llround(kSmallestBytes * std::exp2(i / 2.0)), one_bucket_bytes);
    sizes.push_back({bytes, exposed_ms(plan_buckets(layout, wire, bytes), backward, costs)});
  }
  const auto least = std::min_element(
      sizes.begin(), sizes.end(), [](const BucketSize& a, const BucketSize& b) { return a.exposed_ms < b.exposed_ms; });
  const double enough_ms = least->exposed_ms + indifferent_ms;
  return *std::find_if(sizes.rbegin(), sizes.rend(),
                       [&](const BucketSize& size) { return size.exposed_ms <= enough_ms; });
}

std::int64_t bucket_bytes_by_rule(const ParamLayout& layout, DType wire) {
  return std::clamp<std::int64_t>(layout_bytes(layout, wire) / 16, 64 << 10, 25 << 20);
}

}  // namespace strake::comm
