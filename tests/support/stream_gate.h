// StreamGate: a gate (gate.h) for tests that run on devices of any kind. A GPU's is in tests/cuda.
#pragma once

#include "tests/support/gate.h"

namespace strake::test {

class StreamGate {
 public:
  virtual ~StreamGate() = default;
  virtual void open() = 0;
  virtual bool reached() const = 0;
  // Holds its stream until the gate is open. The gate outlives the stream.
  virtual Body body() = 0;
};

class CpuGate final : public StreamGate {
 public:
  void open() override { gate_.open(); }
  bool reached() const override { return gate_.reached(); }
  Body body() override { return gate_.body(); }

 private:
  Gate gate_;
};

}  // namespace strake::test
