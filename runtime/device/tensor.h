// Tensor: a strided view of an arena. A value type; it owns nothing and holds no address.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "runtime/base/dtype.h"
#include "runtime/device/arena.h"

namespace strake {

class Tensor {
 public:
  static constexpr int kMaxRank = 4;

  Tensor() = default;
  // A contiguous (row-major) tensor at `offset_bytes` of `arena`. The arena outlives the tensor.
  Tensor(const Arena& arena, std::size_t offset_bytes, DType dtype, std::span<const std::int64_t> shape);
  Tensor(const Arena& arena, std::size_t offset_bytes, DType dtype, std::initializer_list<std::int64_t> shape)
      : Tensor(arena, offset_bytes, dtype, std::span<const std::int64_t>(shape.begin(), shape.size())) {}
  // Reserves contiguous space in `arena` for the shape.
  static Tensor reserve(Arena& arena, DType dtype, std::span<const std::int64_t> shape);
  static Tensor reserve(Arena& arena, DType dtype, std::initializer_list<std::int64_t> shape) {
    return reserve(arena, dtype, std::span<const std::int64_t>(shape.begin(), shape.size()));
  }

  bool defined() const { return arena_ != nullptr; }
  const Arena& arena() const { return *arena_; }
  std::size_t offset_bytes() const { return offset_bytes_; }
  DType dtype() const { return dtype_; }
  int rank() const { return rank_; }
  std::int64_t size(int axis) const { return shape_[static_cast<std::size_t>(axis)]; }
  std::int64_t stride(int axis) const { return strides_[static_cast<std::size_t>(axis)]; }  // in elements
  std::span<const std::int64_t> shape() const { return {shape_.data(), static_cast<std::size_t>(rank_)}; }
  std::int64_t elems() const;
  bool contiguous() const;
  // Bytes from the first to one past the last element: what a hazard on this view covers.
  std::size_t extent_bytes() const;

  // REQUIRES: the arena is allocated.
  DeviceAddress address() const { return {arena_->base().value + offset_bytes_}; }

  // Views of the same memory. reshape REQUIRES contiguous and equal elems.
  Tensor reshape(std::initializer_list<std::int64_t> shape) const;
  // Elements [begin, begin + length) along `axis`.
  Tensor slice(int axis, std::int64_t begin, std::int64_t length) const;
  // Flat range of a contiguous tensor, as rank 1.
  Tensor flat(std::int64_t begin_elems, std::int64_t length_elems) const;
  Tensor with_strides(std::initializer_list<std::int64_t> shape,
                      std::initializer_list<std::int64_t> strides_elems) const;

  // "f32[8, 128]" for messages.
  std::string describe() const;

 private:
  const Arena* arena_ = nullptr;
  std::size_t offset_bytes_ = 0;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  std::array<std::int64_t, kMaxRank> shape_{};
  std::array<std::int64_t, kMaxRank> strides_{};
};

}  // namespace strake
