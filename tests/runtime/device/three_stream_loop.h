// A small step loop with every kind of wait that training has: input double-buffered on a copy stream,
// gradients reduced on a communication stream, an optimizer that needs the result.
//
//   copy     WAR slot is free -> h2d into the slot
//   compute  RAW batch is there -> forward -> backward;   RAW gradients are reduced -> optimizer
//   comm     RAW gradients are final -> reduce
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "runtime/device/device.h"
#include "runtime/device/host_memory.h"

namespace strake::test {

inline constexpr std::array<std::string_view, 4> kLoopWaits{
    "copy waits until the slot is free", "compute waits for the batch", "comm waits for the gradients",
    "optimizer waits for the reduced gradients"};

class ThreeStreamLoop {
 public:
  static constexpr std::int64_t kElems = 64;

  explicit ThreeStreamLoop(Device& device)
      : copy_(device.make_stream("copy", StreamPriority::kNormal)),
        compute_(device.make_stream("compute", StreamPriority::kNormal)),
        comm_(device.make_stream("comm", StreamPriority::kHigh)),
        gradients_final_(device.make_event("gradients final")),
        gradients_reduced_(device.make_event("gradients reduced")),
        batch_ready_{device.make_event("batch 0 ready"), device.make_event("batch 1 ready")},
        slot_free_{device.make_event("slot 0 free"), device.make_event("slot 1 free")},
        slots_{tensor(), tensor()},
        activations_(tensor()),
        gradients_(tensor()),
        weights_(tensor()) {
    arena_.allocate(device);
  }

  void enqueue(std::int64_t steps) {
    for (; steps > 0; --steps) enqueue_step();
  }
  // Enqueues `steps` steps and waits for them; the first weight. REQUIRES: a device that runs operations.
  std::int64_t run(std::int64_t steps) {
    enqueue(steps);
    compute_->synchronize();
    return host_span<std::int64_t>(weights_)[0];
  }

  // What the first weight is after so many steps from the start.
  static std::int64_t expected(std::int64_t steps) {
    std::int64_t weight = 0;
    for (std::int64_t step = 0; step < steps; ++step) weight += 2 * ((step + weight) * 3 % 1009);
    return weight;
  }

 private:
  Tensor tensor() { return Tensor::reserve(arena_, DType::kI64, {kElems}); }

  // to[i] = function(to[i], from[i]) for every element.
  template <typename Function>
  static void update(Stream& stream, Label label, const Tensor& to, const Tensor& from, Function function) {
    const std::array<Tensor, 2> reads{to, from};
    stream.launch({.label = label, .kind = "update", .reads = reads, .writes = {&to, 1}},
                  [to, from, function](NativeStream) {
                    auto out = host_span<std::int64_t>(to);
                    auto in = host_span<std::int64_t>(from);
                    for (std::size_t i = 0; i < out.size(); ++i) out[i] = function(out[i], in[i]);
                  });
  }

  void enqueue_step() {
    const std::size_t slot = static_cast<std::size_t>(step_ % 2);
    copy_->wait(slot_free_[slot], {kLoopWaits[0], Hazard::kWriteAfterRead});
    copy_->launch({.label = {"h2d", Phase::kInput}, .kind = "fill", .reads = {}, .writes = {&slots_[slot], 1}},
                  [to = slots_[slot], step = step_](NativeStream) {
                    for (std::int64_t& value : host_span<std::int64_t>(to)) value = step;
                  });
    copy_->record(batch_ready_[slot]);

    compute_->wait(batch_ready_[slot], {kLoopWaits[1], Hazard::kReadAfterWrite});
    update(*compute_, {"forward", Phase::kForward}, activations_, slots_[slot],
           [](std::int64_t, std::int64_t token) { return token; });
    compute_->record(slot_free_[slot]);
    update(*compute_, {"forward with weights", Phase::kForward}, activations_, weights_,
           [](std::int64_t activation, std::int64_t weight) { return activation + weight; });
    update(*compute_, {"backward", Phase::kBackward}, gradients_, activations_,
           [](std::int64_t, std::int64_t activation) { return activation * 3 % 1009; });
    compute_->record(gradients_final_);

    comm_->wait(gradients_final_, {kLoopWaits[2], Hazard::kReadAfterWrite});
    update(*comm_, {"reduce", Phase::kComm}, gradients_, gradients_,
           [](std::int64_t mine, std::int64_t theirs) { return mine + theirs; });
    comm_->record(gradients_reduced_);

    compute_->wait(gradients_reduced_, {kLoopWaits[3], Hazard::kReadAfterWrite});
    update(*compute_, {"optimizer", Phase::kOptimizer}, weights_, gradients_,
           [](std::int64_t weight, std::int64_t gradient) { return weight + gradient; });
    ++step_;
  }

  Arena arena_{"loop", MemoryKind::kHost};
  std::unique_ptr<Stream> copy_, compute_, comm_;
  Event gradients_final_, gradients_reduced_;
  std::array<Event, 2> batch_ready_, slot_free_;
  std::array<Tensor, 2> slots_;
  Tensor activations_, gradients_, weights_;
  std::int64_t step_ = 0;
};

}  // namespace strake::test
