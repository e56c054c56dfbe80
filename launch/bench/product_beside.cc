#include "launch/bench/product_beside.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "kernels/matmul.h"
#include "runtime/base/random.h"
#include "runtime/device/host_memory.h"
#include "runtime/device/recording.h"
#include "runtime/telemetry/spread.h"

namespace strake::launch {
namespace {

constexpr std::int64_t kMostSize = 1 << 20;
constexpr std::int64_t kStagedElems = 1 << 20;

}  // namespace

std::string ProductShape::to_text() const { return fmt::format("{}x{}x{}", rows, outs, ins); }

std::optional<ProductShape> product_shape_from(std::string_view text) {
  ProductShape shape;
  const char *at = text.data(), *const end = text.data() + text.size();
  for (std::int64_t* size : {&shape.rows, &shape.outs, &shape.ins}) {
    if (size != &shape.rows && (at == end || *at++ != 'x')) return std::nullopt;
    const auto [behind, error] = std::from_chars(at, end, *size);
    if (error != std::errc() || *size < 1 || *size > kMostSize) return std::nullopt;
    at = behind;
  }
  return at == end ? std::optional(shape) : std::nullopt;
}

ProductBeside::ProductBeside(Device& device, const ProductShape& shape, int spared)
    : device_(device), spared_(spared), stream_(device.make_stream("product", StreamPriority::kNormal)) {
  const DType type = device.target() == DeviceKind::kCuda ? DType::kBF16 : DType::kF32;
  x_ = Tensor::reserve(memory_, type, {shape.rows, shape.ins});
  weight_ = Tensor::reserve(memory_, type, {shape.outs, shape.ins});
  y_ = Tensor::reserve(memory_, type, {shape.rows, shape.outs});
  values_ = Tensor::reserve(host_memory_, type, {kStagedElems});
  prepare();
  memory_.allocate(device);
  host_memory_.allocate(device);
  if (workspace_.defined()) stream_->set_workspace(workspace_);
  fill(x_);
  fill(weight_);
  for (int i = 0; i < 2 * kProducts; ++i) marks_.push_back(device.make_mark(fmt::format("product mark {}", i)));
}

// Plans the product as it will run, and lets the kernels choose.
void ProductBeside::prepare() {
  PlanDevice plan(device_);
  const auto stream = plan.make_stream("product", StreamPriority::kNormal);
  for (const int spared : {0, spared_}) {
    use_spared(spared);
    kernels::linear_forward(*stream, {"product"}, {.y = y_, .x = x_, .weight = weight_});
  }
  const std::size_t workspace_bytes = plan.recording().workspace_bytes(stream->index());
  if (workspace_bytes > 0)
    workspace_ = Tensor::reserve(memory_, DType::kU8, {static_cast<std::int64_t>(workspace_bytes)});
  if (KernelState* kernels = device_.kernel_state(); kernels != nullptr) kernels->tune();
}

void ProductBeside::use_spared(int multiprocessors) {
  if (KernelState* kernels = device_.kernel_state(); kernels != nullptr)
    kernels->spare({.forward = multiprocessors, .backward = multiprocessors});
}

void ProductBeside::fill(const Tensor& tensor) {
  const Philox random(random_key(0, "a product beside collectives"));
  for (std::int64_t i = 0; i < values_.elems(); ++i) {
    const float value = static_cast<float>(random.uniform(static_cast<std::uint64_t>(i))) - 0.5f;
    if (values_.dtype() == DType::kBF16) {
      host_span<BFloat16>(values_)[static_cast<std::size_t>(i)] = to_bfloat16(value);
    } else {
      host_span<float>(values_)[static_cast<std::size_t>(i)] = value;
    }
  }
  const Tensor flat = tensor.flat(0, tensor.elems());
  for (std::int64_t begin = 0; begin < flat.elems(); begin += values_.elems()) {
    const std::int64_t now = std::min(values_.elems(), flat.elems() - begin);
    stream_->copy({"values"}, flat.flat(begin, now), values_.flat(0, now));
  }
  stream_->synchronize();  // the staging is filled again
}

void ProductBeside::launch() { kernels::linear_forward(*stream_, {"product"}, {.y = y_, .x = x_, .weight = weight_}); }

void ProductBeside::enqueue(int index) {
  use_spared(spared_);
  stream_->mark(marks_[2 * static_cast<std::size_t>(index)]);
  launch();
  stream_->mark(marks_[2 * static_cast<std::size_t>(index) + 1]);
}

double ProductBeside::alone_us() {
  use_spared(0);
  std::vector<double> times_us;
  for (int i = 0; i < kProducts; ++i) {
    stream_->mark(marks_[0]);
    launch();
    stream_->mark(marks_[1]);
    stream_->synchronize();
    times_us.push_back(static_cast<double>(device_.elapsed(marks_[0], marks_[1]).count()) / 1e3);
  }
  times_us.erase(times_us.begin());  // a warm-up
  return median_of(std::move(times_us));
}

}  // namespace strake::launch
