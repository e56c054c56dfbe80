// ShardedParameters: each bucket of the layout is as many equal pieces as there are ranks; a rank updates its own
// (ZeRO stage 1, Rajbhandari et al. 2020). It keeps the moments of that piece alone, and its f32 weights where the
// model computes in bf16; what the model reads, and gradients, it holds whole.
//
//   backward --bucket--> reduce-scatter --> norm of own pieces --sums--> all-reduce --> AdamW of own pieces
//                                                                                        |--bucket--> all-gather
//   next forward: waits for a bucket when it first asks for a weight of it
//
// Updates and gathers go in the order in which forward needs buckets: the reverse of the layout's, but that of a split
// token table, the layout's first, before all others.
// Threads: the training thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "comm/weight_gathers.h"
#include "models/parameters/parameters.h"

namespace strake::models {

class ShardedParameters final : public Parameters {
 public:
  // Pads `layout`.
  ShardedParameters(Device& device, ParamLayout& layout, ParameterTypes types, const Memory& memory, Stream& compute,
                    const Reduction& reduction);

  Tensor weight(ParamId id) override {
    gathers_->needed(id);
    return layout_.view(compute_weights_, id);
  }
  void use_slot(int slot) override {
    Parameters::use_slot(slot);
    gathers_->use_slot(slot);
  }
  void add_over_ranks(const Tensor& sums) override;
  void updated(std::size_t piece) override;
  void wait_whole() override { gathers_->wait_whole(); }
  void around_waits(std::function<void()> before, std::function<void()> behind) override {
    gathers_->around_waits(std::move(before), std::move(behind));
  }
  std::vector<Replica> replicas() const override { return {{"weights", compute_weights_}}; }
  bool replicated() const override { return false; }
  std::vector<comm::WeightGathers::Timing> gathers(int slot) const override {
    const std::vector<comm::WeightGathers::Timing> timings = gathers_->timings(slot);
    std::vector<comm::WeightGathers::Timing> in_order;
    for (const OwnedPiece& piece : owned_) in_order.push_back(timings[piece.bucket]);
    return in_order;
  }

 private:
  comm::Communicator& communicator_;
  Stream& comm_;
  Tensor weights_;  // of owned pieces alone where the model reads rounded ones
  std::unique_ptr<comm::WeightGathers> gathers_;
  Event sums_final_, sums_added_;
};

}  // namespace strake::models
