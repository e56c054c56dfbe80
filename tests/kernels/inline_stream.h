// InlineStream: a stream that runs each operation at once on the calling thread and keeps its declaration.
// For the CPU device.
#pragma once

#include <string>
#include <vector>

#include "runtime/device/forwarding.h"

namespace strake::kernels::testing {

struct LaunchedOperation {
  std::string kind;
  std::vector<Tensor> reads;
  std::vector<Tensor> writes;
  double flops;
};

class InlineStream final : public ForwardingStream {
 public:
  explicit InlineStream(Device& device)
      : ForwardingStream(device, device.make_stream("inline", StreamPriority::kNormal)) {}
  void launch(const Operation& operation, Body body) override {
    launched.push_back({std::string(operation.kind),
                        {operation.reads.begin(), operation.reads.end()},
                        {operation.writes.begin(), operation.writes.end()},
                        operation.flops});
    body({});
  }

  std::vector<LaunchedOperation> launched;
};

}  // namespace strake::kernels::testing
