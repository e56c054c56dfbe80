#include "runtime/device/param_spec.h"

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

std::vector<OwnedRange> ParamLayout::owned() const {
  std::vector<OwnedRange> ranges;
  for (std::size_t i = 0; i < size(); ++i) {
    ranges.push_back({.param = ParamId{static_cast<std::int32_t>(i)},
                      .begin_elems = 0,
                      .size_elems = specs_[i].elems(),
                      .flat_begin_elems = offsets_elems_[i]});
  }
  return ranges;
}

}  // namespace strake
