// TransformerOnDevice: a GPT with all its memory on one CPU device, driven one call at a time by a test.
//
// Every call blocks until the device is idle, so that the test may read and write weights, gradients and tokens in
// place. Threads: one. Errors: what the device throws.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "models/initialize.h"
#include "models/parameters/flat_params.h"
#include "models/transformer.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/device.h"
#include "runtime/device/recording.h"

namespace strake::test {

class TransformerOnDevice {
 public:
  // `planned` null: every activation has bytes of its own.
  TransformerOnDevice(Device& device, const models::TransformerShape& shape, std::int64_t batch, DType dtype,
                      const MemoryPlan* planned = nullptr, models::Recompute recompute = models::Recompute::kNone)
      : shape_(shape),
        dtype_(dtype),
        model_(shape, layout_),
        activation_memory_(planned == nullptr ? ActivationMemory(activations_)
                                              : ActivationMemory(activations_, planned->blocks)),
        weights_(Tensor::reserve(flat_, dtype, {layout_.total_elems()})),
        gradients_(Tensor::reserve(flat_, dtype, {layout_.total_elems()})),
        params_(layout_, weights_, gradients_, [this](ParamId id) { ready(id); }),
        stream_(device.make_stream("compute", StreamPriority::kNormal)) {
    gradients_when_ready_ = Tensor::reserve(flat_, dtype, {layout_.total_elems()});
    loss_total_ = Tensor::reserve(flat_, dtype, {1});
    tokens_ = Tensor::reserve(flat_, DType::kI32, {batch, shape.sequence});
    targets_ = Tensor::reserve(flat_, DType::kI32, {batch, shape.sequence});
    staging_ = Tensor::reserve(host_, dtype, {models::initial_staging_elems(layout_)});
    if (planned != nullptr) activations_.reserve(planned->size_bytes);
    model_.recompute(recompute);
    model_.reserve(activation_memory_, batch, dtype, DeviceKind::kCpu);
    for (Arena* arena : {&flat_, &host_, &activations_}) arena->allocate(device);
  }

  // Activations placed by a dry run of one training step.
  static MemoryPlan plan(const models::TransformerShape& shape, std::int64_t batch, DType dtype,
                         models::Recompute recompute = models::Recompute::kNone) {
    PlanDevice device;
    TransformerOnDevice gpt(device, shape, batch, dtype, nullptr, recompute);
    gpt.enqueue_step(1, false);
    return plan_memory(gpt.activation_memory_.blocks(), gpt.activations_, device.recording());
  }

  void initialize(std::uint64_t seed) {
    models::initialize_weights(*stream_, weights_, staging_, layout_, seed);
    stream_->synchronize();
  }
  // Forward and backward; the mean loss a token. Gradients are of the mean loss times `gradient_scale`.
  double train(double gradient_scale = 1, bool accumulate = false) {
    enqueue_step(gradient_scale, accumulate);
    stream_->synchronize();
    return loss();
  }
  double train_loss_only() {
    const models::Pass pass{.compute = *stream_, .params = params_};
    model_.forward(pass, tokens_);
    model_.loss_and_gradient(pass, targets_, loss_total_, per_token(), per_token(), false);
    stream_->synchronize();
    return loss();
  }
  double evaluate() {
    const models::Pass pass{.compute = *stream_, .params = params_, .phase = Phase::kEval};
    model_.forward(pass, tokens_);
    model_.loss(pass, targets_, loss_total_, per_token(), false);
    stream_->synchronize();
    return loss();
  }

  void record_step() { enqueue_step(1, false); }

  const ParamLayout& layout() const { return layout_; }
  std::size_t activation_bytes() const { return activations_.size_bytes(); }
  // In the order of the ready() calls of the last train().
  const std::vector<ParamId>& ready_order() const { return ready_order_; }

  template <typename T>
  std::span<T> weights() {
    return span_of<T>(weights_);
  }
  template <typename T>
  std::span<T> gradients() {
    return span_of<T>(gradients_);
  }
  template <typename T>
  std::span<T> gradient(ParamId id) {
    return span_of<T>(layout_.view(gradients_, id));
  }
  // As it was where ready(id) was called.
  template <typename T>
  std::span<T> gradient_when_ready(ParamId id) {
    return span_of<T>(layout_.view(gradients_when_ready_, id));
  }
  // Of the last evaluate(): [B*T, padded vocab].
  template <typename T>
  std::span<T> logits() {
    return span_of<T>(model_.logits());
  }
  std::span<std::int32_t> tokens() { return span_of<std::int32_t>(tokens_); }
  std::span<std::int32_t> targets() { return span_of<std::int32_t>(targets_); }

 private:
  template <typename T>
  static std::span<T> span_of(const Tensor& tensor) {
    return {cpu::data<T>(tensor), static_cast<std::size_t>(tensor.elems())};
  }
  double per_token() const { return 1.0 / static_cast<double>(tokens_.elems()); }
  double loss() const {
    return dtype_ == DType::kF64 ? *cpu::data<double>(loss_total_)
                                 : static_cast<double>(*cpu::data<float>(loss_total_));
  }
  void enqueue_step(double gradient_scale, bool accumulate) {
    ready_order_.clear();
    const models::Pass pass{.compute = *stream_,
                            .params = params_,
                            .accumulate = accumulate ? kernels::Accumulate::kAdd : kernels::Accumulate::kOverwrite};
    model_.forward(pass, tokens_);
    model_.loss_and_gradient(pass, targets_, loss_total_, per_token(), gradient_scale * per_token(), accumulate);
    model_.backward(pass, tokens_);
  }
  void ready(ParamId id) {
    ready_order_.push_back(id);
    const auto flat = [&](const Tensor& all) { return layout_.view(all, id).reshape({layout_.spec(id).elems()}); };
    stream_->copy({"gradient when ready", Phase::kOther}, flat(gradients_when_ready_), flat(gradients_));
  }

  models::TransformerShape shape_;
  DType dtype_;
  ParamLayout layout_;
  models::Transformer model_;
  Arena flat_{"flat", MemoryKind::kDevice};
  Arena host_{"host", MemoryKind::kHost};
  Arena activations_{"activations", MemoryKind::kDevice};
  ActivationMemory activation_memory_;
  Tensor weights_, gradients_, gradients_when_ready_, loss_total_, tokens_, targets_, staging_;
  models::FlatParams params_;
  std::vector<ParamId> ready_order_;
  std::unique_ptr<Stream> stream_;  // last: it drains before the memory goes
};

}  // namespace strake::test
