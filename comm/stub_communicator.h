// StubCommunicator: collectives that, from a chosen moment on, send nothing: the same operations on the same streams,
// with their waits and events, whose bodies do nothing. What a step then takes is what it would take if communication
// were free; its results are wrong.
//
// Every rank switches at the same collective.
// Threads: the training thread. Errors: as the communicator inside.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/forwarding_communicator.h"
#include "runtime/base/check.h"

namespace strake::comm {

class StubCommunicator final : public ForwardingCommunicator {
 public:
  explicit StubCommunicator(std::unique_ptr<Communicator> inner) : ForwardingCommunicator(std::move(inner)) {}

  // Of the collectives enqueued next.
  void stub(bool stubbed) { stubbed_ = stubbed; }

  // REQUIRES: nobody calls it: parts would have to be switched too.
  std::unique_ptr<Communicator> split(int, int) override { check_failed("split", "a stubbed group cannot be split"); }

 protected:
  Body all_reduce_body(const std::string& name, const Tensor& data) override {
    return stubbed_ ? nothing() : ForwardingCommunicator::all_reduce_body(name, data);
  }
  Body reduce_scatter_body(const std::string& name, const Tensor& out, const Tensor& in) override {
    return stubbed_ ? nothing() : ForwardingCommunicator::reduce_scatter_body(name, out, in);
  }
  Body all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) override {
    return stubbed_ ? nothing() : ForwardingCommunicator::all_gather_body(name, out, in);
  }
  Body broadcast_body(const std::string& name, const Tensor& data, int root) override {
    return stubbed_ ? nothing() : ForwardingCommunicator::broadcast_body(name, data, root);
  }
  Body all_to_all_body(const std::string& name, const Tensor& out, std::vector<std::int64_t> recv_elems,
                       const Tensor& in, std::vector<std::int64_t> send_elems) override {
    return stubbed_
               ? nothing()
               : ForwardingCommunicator::all_to_all_body(name, out, std::move(recv_elems), in, std::move(send_elems));
  }
  Body barrier_body(const std::string& name) override {
    return stubbed_ ? nothing() : ForwardingCommunicator::barrier_body(name);
  }

 private:
  static Body nothing() {
    return [](NativeStream) {};
  }

  bool stubbed_ = false;
};

}  // namespace strake::comm
