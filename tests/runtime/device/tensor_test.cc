#include "runtime/device/tensor.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/host_memory.h"

namespace strake::test {
namespace {

std::vector<std::int64_t> shape_of(const Tensor& tensor) { return {tensor.shape().begin(), tensor.shape().end()}; }
std::vector<std::int64_t> strides_of(const Tensor& tensor) {
  std::vector<std::int64_t> out;
  for (int axis = 0; axis < tensor.rank(); ++axis) out.push_back(tensor.stride(axis));
  return out;
}
using Shape = std::vector<std::int64_t>;

class TensorTest : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  Arena arena_{"arena", MemoryKind::kHost};
};

TEST_F(TensorTest, ReservationsAreRowMajorAndAligned) {
  const Tensor a = Tensor::reserve(arena_, DType::kBF16, {2, 3, 5});
  const Tensor b = Tensor::reserve(arena_, DType::kF64, {33});
  const Tensor scalar = Tensor::reserve(arena_, DType::kF32, {});
  EXPECT_EQ(shape_of(a), (Shape{2, 3, 5}));
  EXPECT_EQ(strides_of(a), (Shape{15, 5, 1}));
  EXPECT_EQ(a.elems(), 30);
  EXPECT_EQ(a.extent_bytes(), 60u);
  EXPECT_TRUE(a.contiguous());
  EXPECT_EQ(a.offset_bytes(), 0u);
  EXPECT_EQ(b.offset_bytes(), 256u);
  EXPECT_EQ(b.extent_bytes(), 264u);
  EXPECT_EQ(scalar.offset_bytes(), 768u);
  EXPECT_EQ(scalar.elems(), 1);
  EXPECT_EQ(scalar.extent_bytes(), 4u);
  EXPECT_EQ(arena_.size_bytes(), 1024u);
  EXPECT_EQ(arena_.size_bytes() % Arena::kAlignmentBytes, 0u);
}

TEST_F(TensorTest, DefaultIsUndefined) {
  EXPECT_FALSE(Tensor().defined());
  EXPECT_EQ(Tensor().describe(), "undefined");
  EXPECT_TRUE(Tensor(arena_, 0, DType::kF32, {1}).defined());
}

TEST_F(TensorTest, SlicesKeepStridesAndMoveTheOffset) {
  const Tensor matrix = Tensor(arena_, 512, DType::kF32, {4, 6});
  const Tensor rows = matrix.slice(0, 1, 2);
  EXPECT_EQ(shape_of(rows), (Shape{2, 6}));
  EXPECT_EQ(rows.offset_bytes(), 512u + 6 * 4);
  EXPECT_TRUE(rows.contiguous());
  EXPECT_EQ(rows.extent_bytes(), 48u);

  const Tensor columns = matrix.slice(1, 2, 3);
  EXPECT_EQ(shape_of(columns), (Shape{4, 3}));
  EXPECT_EQ(strides_of(columns), (Shape{6, 1}));
  EXPECT_EQ(columns.offset_bytes(), 512u + 2 * 4);
  EXPECT_FALSE(columns.contiguous());
  EXPECT_EQ(columns.elems(), 12);
  EXPECT_EQ(columns.extent_bytes(), (3 * 6 + 2 + 1) * 4u);  // from the first to behind the last element

  EXPECT_TRUE(matrix.slice(1, 2, 3).slice(0, 3, 1).contiguous());  // one row of them is
  EXPECT_EQ(matrix.slice(0, 4, 0).extent_bytes(), 0u);
  EXPECT_EQ(matrix.slice(0, 4, 0).elems(), 0);
  EXPECT_EQ(columns.describe(), "f32[4, 3] strided");
}

TEST_F(TensorTest, FlatRangesAndReshapesSeeTheSameMemory) {
  const Tensor matrix = Tensor(arena_, 256, DType::kI64, {4, 6});
  const Tensor range = matrix.flat(5, 8);
  EXPECT_EQ(shape_of(range), Shape{8});
  EXPECT_EQ(range.offset_bytes(), 256u + 40);
  EXPECT_EQ(range.extent_bytes(), 64u);
  const Tensor cube = matrix.reshape({2, 2, 6});
  EXPECT_EQ(strides_of(cube), (Shape{12, 6, 1}));
  EXPECT_EQ(cube.offset_bytes(), matrix.offset_bytes());
  EXPECT_EQ(shape_of(matrix.slice(0, 1, 2).reshape({12})), Shape{12});
}

TEST_F(TensorTest, StridesMayBeChosen) {
  const Tensor matrix = Tensor(arena_, 0, DType::kF32, {4, 6});
  const Tensor transposed = matrix.with_strides({6, 4}, {1, 6});
  EXPECT_FALSE(transposed.contiguous());
  EXPECT_EQ(transposed.extent_bytes(), matrix.extent_bytes());
  const Tensor broadcast = matrix.flat(0, 6).with_strides({4, 6}, {0, 1});
  EXPECT_EQ(broadcast.elems(), 24);
  EXPECT_EQ(broadcast.extent_bytes(), 24u);
  EXPECT_FALSE(broadcast.contiguous());
  EXPECT_TRUE(matrix.with_strides({1, 4}, {17, 1}).contiguous());  // the stride of one element does not matter
}

TEST_F(TensorTest, ViewsOutsideTheirTensorAreProgrammerErrors) {
  const Tensor matrix = Tensor(arena_, 0, DType::kF32, {4, 6});
  EXPECT_DEATH(matrix.slice(0, 3, 2), "slice outside f32\\[4, 6\\]");
  EXPECT_DEATH(matrix.slice(0, -1, 2), "slice outside");
  EXPECT_DEATH(matrix.slice(2, 0, 1), "slice outside");
  EXPECT_DEATH(matrix.flat(20, 5), "range outside");
  EXPECT_DEATH(matrix.slice(1, 0, 2).flat(0, 1), "range outside f32\\[4, 2\\] strided");
  EXPECT_DEATH(matrix.reshape({5, 5}), "reshape of f32\\[4, 6\\] to f32\\[5, 5\\]");
  EXPECT_DEATH(matrix.slice(1, 0, 2).reshape({8}), "reshape of a strided tensor");
  EXPECT_DEATH(matrix.with_strides({4, 6}, {7, 1}), "strided view reaches outside");
  EXPECT_DEATH(matrix.with_strides({4, 6}, {1}), "as many strides as axes");
  EXPECT_DEATH(Tensor(arena_, 0, DType::kF32, {1, 1, 1, 1, 1}), "at most four axes");
  EXPECT_DEATH(Tensor(arena_, 0, DType::kF32, {-1}), "negative extent");
}

TEST_F(TensorTest, ResolvesToMemoryOnlyOnceThereIsSome) {
  const auto device = make_cpu_device();
  Arena arena("late", MemoryKind::kHost);  // goes before its device
  const Tensor a = Tensor::reserve(arena, DType::kI32, {10}), b = Tensor::reserve(arena, DType::kI32, {2, 5});
  EXPECT_DEATH(static_cast<void>(a.address()), "arena 'late' has no memory yet");
  arena.allocate(*device);
  EXPECT_EQ(b.address().value - a.address().value, 256u);
  EXPECT_EQ(a.address().value % Arena::kAlignmentBytes, 0u);
  cpu::data<std::int32_t>(b)[7] = 5;
  EXPECT_EQ(host_span<std::int32_t>(b)[7], 5);
  EXPECT_EQ(host_span<std::int32_t>(b.slice(0, 1, 1))[2], 5);
  EXPECT_EQ(host_bytes(b).size(), 40u);
  EXPECT_DEATH(host_span<float>(b), "i32\\[2, 5\\] read as another type");
  EXPECT_DEATH(host_span<std::int32_t>(b.slice(1, 0, 2)), "read as another type");
  EXPECT_DEATH(static_cast<void>(cpu::data<float>(b)), "read as another type");
  EXPECT_DEATH(arena.reserve(1), "memory is planned before step 1");
  EXPECT_DEATH(arena.allocate(*device), "arena 'late' is allocated already");

  Arena on_device("weights", MemoryKind::kDevice);
  const Tensor hidden = Tensor::reserve(on_device, DType::kI32, {1});
  on_device.allocate(*device);
  EXPECT_DEATH(host_span<std::int32_t>(hidden), "arena 'weights' is device memory");
  EXPECT_DEATH(host_bytes(hidden), "arena 'weights' is device memory");
}

TEST_F(TensorTest, EmptyArenaNeedsNoMemory) {
  const auto device = make_cpu_device();
  Arena empty("empty", MemoryKind::kDevice);
  empty.allocate(*device);
  EXPECT_TRUE(empty.allocated());
  EXPECT_EQ(device->allocated_bytes(), 0u);
}

}  // namespace
}  // namespace strake::test
