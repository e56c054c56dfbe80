// ProductBeside: a matrix product that is timed beside collectives: what they take from it, and it from them.
//
// A forward product of the kind that a step is made of, in bf16 on GPUs and f32 on the CPU, on a stream of its own,
// with the algorithm that is fastest alone. Random operands: zeros multiply faster. Threads: the training thread.
// Errors: OutOfMemoryError, DeviceError.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/device.h"

namespace strake::launch {

// y [rows, outs] = x [rows, ins] weight [outs, ins].
struct ProductShape {
  std::int64_t rows = 0, outs = 0, ins = 0;
  std::string to_text() const;  // "8192x16384x2048"
};
// Nothing for any other text, and for sizes that no product has.
std::optional<ProductShape> product_shape_from(std::string_view text);

class ProductBeside {
 public:
  static constexpr int kProducts = 10;

  // Takes the memory, chooses the algorithms. `spared`: multiprocessors that it leaves to what runs beside it.
  ProductBeside(Device& device, const ProductShape& shape, int spared);

  // Of several with nothing beside them, on all multiprocessors. Blocks.
  double alone_us();

  // Enqueues product `index` of kProducts, between its marks.
  void enqueue(int index);
  // Blocks until all have run.
  void finish() { stream_->synchronize(); }
  const Mark& begin(int index) const { return marks_[2 * static_cast<std::size_t>(index)]; }
  const Mark& end(int index) const { return marks_[2 * static_cast<std::size_t>(index) + 1]; }

 private:
  void launch();
  void use_spared(int multiprocessors);
  void prepare();
  void fill(const Tensor& tensor);

  Device& device_;
  const int spared_;
  Arena memory_{"product", MemoryKind::kDevice}, host_memory_{"values of a product", MemoryKind::kHost};
  Tensor x_, weight_, y_, workspace_, values_;
  std::vector<Mark> marks_;
  std::unique_ptr<Stream> stream_;  // drains before the memory goes
};

}  // namespace strake::launch
