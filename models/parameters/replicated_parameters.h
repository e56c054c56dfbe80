// ReplicatedParameters: every rank of the data axis holds, updates and keeps the whole model.
// Threads: the training thread.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "models/parameters/parameters.h"

namespace strake::models {

class ReplicatedParameters final : public Parameters {
 public:
  ReplicatedParameters(Device& device, const ParamLayout& layout, ParameterTypes types, const Memory& memory,
                       Stream& compute, const Reduction& reduction);

  Tensor weight(ParamId id) override { return layout_.view(compute_weights_, id); }
  void add_over_ranks(const Tensor&) override {}
  void updated(std::size_t) override {}
  void wait_whole() override {}
  void around_waits(std::function<void()>, std::function<void()>) override {}
  std::vector<Replica> replicas() const override { return {{"weights", weights_}}; }
  bool replicated() const override { return true; }
  std::vector<comm::WeightGathers::Timing> gathers(int) const override { return {}; }

 private:
  Tensor weights_;  // flat
};

}  // namespace strake::models
