// FlatParams: parameters that this rank holds whole, in flat tensors of one layout.
// Threads: the training thread. The layout outlives it.
#pragma once

#include <functional>
#include <utility>

#include "models/parameters/param_access.h"

namespace strake::models {

class FlatParams final : public ParamAccess {
 public:
  using Ready = std::function<void(ParamId)>;

  // gradients: undefined where there is no backward. `ready` may be empty.
  FlatParams(const ParamLayout& layout, Tensor weights, Tensor gradients, Ready ready = {})
      : layout_(layout), weights_(weights), gradients_(gradients), ready_(std::move(ready)) {}

  Tensor weight(ParamId id) override { return layout_.view(weights_, id); }
  Tensor gradient(ParamId id) override { return layout_.view(gradients_, id); }
  void ready(ParamId id) override {
    if (ready_) ready_(id);
  }

 private:
  const ParamLayout& layout_;
  Tensor weights_, gradients_;
  Ready ready_;
};

}  // namespace strake::models
