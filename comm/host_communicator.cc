#include "comm/host_communicator.h"

#include <utility>

namespace strake::comm {

Body HostCommunicator::watched(const std::string&, Body body) { return body; }

template <typename Run>
Body HostCommunicator::body_of(const std::string& name, Run run) {
  return watched(name, [name, run = std::move(run)](NativeStream) { run(name); });
}

Body HostCommunicator::all_reduce_body(const std::string& name, const Tensor& data) {
  return body_of(name, [this, data](const std::string& called) { run_all_reduce(called, data); });
}

Body HostCommunicator::reduce_scatter_body(const std::string& name, const Tensor& out, const Tensor& in) {
  return body_of(name, [this, out, in](const std::string& called) { run_reduce_scatter(called, out, in); });
}

Body HostCommunicator::all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) {
  return body_of(name, [this, out, in](const std::string& called) { run_all_gather(called, out, in); });
}

Body HostCommunicator::broadcast_body(const std::string& name, const Tensor& data, int root) {
  return body_of(name, [this, data, root](const std::string& called) { run_broadcast(called, data, root); });
}

Body HostCommunicator::all_to_all_body(const std::string& name, const Tensor& out, std::vector<std::int64_t> recv_elems,
                                       const Tensor& in, std::vector<std::int64_t> send_elems) {
  return body_of(name, [this, out, recv = std::move(recv_elems), in, send = std::move(send_elems)](
                           const std::string& called) { run_all_to_all(called, out, recv, in, send); });
}

Body HostCommunicator::barrier_body(const std::string& name) {
  return body_of(name, [this](const std::string& called) { run_barrier(called); });
}

}  // namespace strake::comm
