#include "runtime/device/param_spec.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace strake {

int Mesh::coordinate(int rank, MeshAxis axis) const {
  int stride = 1;
  for (int inner = kMeshAxes - 1; inner > static_cast<int>(axis); --inner)
    stride *= sizes[static_cast<std::size_t>(inner)];
  return rank / stride % size(axis);
}

std::int64_t ParamSpec::elems() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : global_shape) product *= extent;
  return product;
}

ParamLayout::ParamLayout(std::vector<ParamSpec> specs) {
  for (ParamSpec& spec : specs) add(std::move(spec));
}

ParamId ParamLayout::add(ParamSpec spec) {
  const ParamId id{static_cast<std::int32_t>(specs_.size())};
  offsets_elems_.push_back(total_elems_);
  total_elems_ += (spec.elems() + kAlignmentElems - 1) / kAlignmentElems * kAlignmentElems;
  specs_.push_back(std::move(spec));
  return id;
}

std::int64_t ParamLayout::param_elems() const {
  std::int64_t sum = 0;
  for (const ParamSpec& spec : specs_) sum += spec.elems();
  return sum;
}

Tensor ParamLayout::view(const Tensor& flat, ParamId id) const {
  STRAKE_CHECK(flat.elems() == total_elems_, "flat tensor " + flat.describe() + " has another layout");
  const Tensor range = flat.flat(offset_elems(id), spec(id).elems());
  return Tensor(range.arena(), range.offset_bytes(), range.dtype(), spec(id).global_shape);
}

std::vector<Section> ParamLayout::sections() const {
  std::vector<Section> sections;
  for (std::size_t i = 0; i < size(); ++i) {
    const ParamSpec& spec = specs_[i];
    const ParamId id{static_cast<std::int32_t>(i)};
    if (sections.empty() || sections.back().summed_over != spec.summed_over ||
        sections.back().final_at_end != spec.final_at_end) {
      sections.push_back({.first = id,
                          .last = id,
                          .begin_elems = offsets_elems_[i],
                          .end_elems = 0,
                          .summed_over = spec.summed_over,
                          .final_at_end = spec.final_at_end});
    }
    sections.back().last = id;
    sections.back().end_elems = i + 1 < size() ? offsets_elems_[i + 1] : total_elems_;
  }
  return sections;
}

std::vector<OwnedRange> ParamLayout::ranges(std::int64_t begin_elems, std::int64_t end_elems) const {
  std::vector<OwnedRange> ranges;
  for (std::size_t i = 0; i < size(); ++i) {
    const std::int64_t from = std::max(begin_elems, offsets_elems_[i]);
    const std::int64_t to = std::min(end_elems, offsets_elems_[i] + specs_[i].elems());
    if (from >= to) continue;
    ranges.push_back({.param = ParamId{static_cast<std::int32_t>(i)},
                      .begin_elems = from - offsets_elems_[i],
                      .size_elems = to - from,
                      .flat_begin_elems = from});
  }
  return ranges;
}

void ParamLayout::pad_behind(std::span<const ParamId> ends, std::int64_t multiple_elems) {
  STRAKE_CHECK(multiple_elems > 0 && multiple_elems % kAlignmentElems == 0, "parameters begin at whole alignments");
  STRAKE_CHECK(!ends.empty() && index_of(ends.back()) + 1 == size(), "the last range ends with the last parameter");
  const auto rounded = [](std::int64_t elems, std::int64_t step) { return (elems + step - 1) / step * step; };
  std::int64_t begin_elems = 0, at_elems = 0;
  std::size_t next = 0;
  for (std::size_t i = 0; i < size(); ++i) {
    offsets_elems_[i] = at_elems;
    at_elems += rounded(specs_[i].elems(), kAlignmentElems);
    if (i != index_of(ends[next])) continue;
    begin_elems = at_elems = begin_elems + rounded(at_elems - begin_elems, multiple_elems);
    ++next;
  }
  STRAKE_CHECK(next == ends.size(), "ranges end in the order of parameters");
  total_elems_ = at_elems;
}

}  // namespace strake
