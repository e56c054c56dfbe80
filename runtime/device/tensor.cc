#include "runtime/device/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace strake {

Tensor::Tensor(const Arena& arena, std::size_t offset_bytes, DType dtype, std::span<const std::int64_t> shape)
    : arena_(&arena), offset_bytes_(offset_bytes), dtype_(dtype), rank_(static_cast<int>(shape.size())) {
  STRAKE_CHECK(shape.size() <= kMaxRank, "tensors have at most four axes");
  std::int64_t stride = 1;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    STRAKE_CHECK(shape[axis] >= 0, "negative extent");
    shape_[axis] = shape[axis];
    strides_[axis] = stride;
    stride *= shape[axis];
  }
}

Tensor Tensor::reserve(Arena& arena, DType dtype, std::span<const std::int64_t> shape) {
  std::size_t elems = 1;
  for (const std::int64_t extent : shape) elems *= static_cast<std::size_t>(extent);
  return Tensor(arena, arena.reserve(elems * size_bytes(dtype)), dtype, shape);
}

std::int64_t Tensor::elems() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape()) product *= extent;
  return product;
}

bool Tensor::contiguous() const {
  std::int64_t stride = 1;
  for (int axis = rank_; axis-- > 0;) {
    if (size(axis) != 1 && this->stride(axis) != stride) return false;
    stride *= size(axis);
  }
  return true;
}

std::size_t Tensor::extent_bytes() const {
  std::int64_t last_elem = 0;
  for (int axis = 0; axis < rank_; ++axis) {
    if (size(axis) == 0) return 0;
    last_elem += (size(axis) - 1) * stride(axis);
  }
  return static_cast<std::size_t>(last_elem + 1) * size_bytes(dtype_);
}

Tensor Tensor::reshape(std::initializer_list<std::int64_t> shape) const {
  STRAKE_CHECK(contiguous(), "reshape of a strided tensor " + describe());
  Tensor out(*arena_, offset_bytes_, dtype_, shape);
  STRAKE_CHECK(out.elems() == elems(), "reshape of " + describe() + " to " + out.describe());
  return out;
}

Tensor Tensor::slice(int axis, std::int64_t begin, std::int64_t length) const {
  STRAKE_CHECK(axis < rank_ && begin >= 0 && length >= 0 && begin + length <= size(axis),
               "slice outside " + describe());
  Tensor out = *this;
  out.offset_bytes_ += static_cast<std::size_t>(begin * stride(axis)) * size_bytes(dtype_);
  out.shape_[static_cast<std::size_t>(axis)] = length;
  return out;
}

Tensor Tensor::flat(std::int64_t begin_elems, std::int64_t length_elems) const {
  STRAKE_CHECK(contiguous() && begin_elems >= 0 && length_elems >= 0 && begin_elems + length_elems <= elems(),
               "range outside " + describe());
  return Tensor(*arena_, offset_bytes_ + static_cast<std::size_t>(begin_elems) * size_bytes(dtype_), dtype_,
                {length_elems});
}

Tensor Tensor::with_strides(std::initializer_list<std::int64_t> shape,
                            std::initializer_list<std::int64_t> strides_elems) const {
  STRAKE_CHECK(shape.size() == strides_elems.size(), "as many strides as axes");
  Tensor out(*arena_, offset_bytes_, dtype_, shape);
  std::size_t axis = 0;
  for (const std::int64_t stride : strides_elems) out.strides_[axis++] = stride;
  STRAKE_CHECK(out.extent_bytes() <= extent_bytes(), "strided view reaches outside " + describe());
  return out;
}

std::string Tensor::describe() const {
  if (!defined()) return "undefined";
  return fmt::format("{}[{}]{}", name_of(dtype_), fmt::join(shape(), ", "), contiguous() ? "" : " strided");
}

}  // namespace strake
