#include "runtime/device/param_spec.h"

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

ParamLayout::ParamLayout(std::vector<ParamSpec> specs) : specs_(std::move(specs)) {
  offsets_elems_.reserve(specs_.size());
  for (const ParamSpec& spec : specs_) {
    offsets_elems_.push_back(total_elems_);
    total_elems_ += (spec.elems() + kAlignmentElems - 1) / kAlignmentElems * kAlignmentElems;
  }
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

}  // namespace strake
