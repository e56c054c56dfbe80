// HostCommunicator: what the communicators of host memory (threads/, mpi/) have in common: a backend says how bytes
// travel in run_* functions, which are called on the stream's worker thread and return when this rank is done.
// Threads, errors: as Communicator. An exception of a run_* function poisons the device.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace strake::comm {

class HostCommunicator : public Communicator {
 protected:
  // `name`: the label, for messages.
  virtual void run_all_reduce(const std::string& name, const Tensor& data) = 0;
  virtual void run_reduce_scatter(const std::string& name, const Tensor& out, const Tensor& in) = 0;
  virtual void run_all_gather(const std::string& name, const Tensor& out, const Tensor& in) = 0;
  virtual void run_broadcast(const std::string& name, const Tensor& data, int root) = 0;
  virtual void run_all_to_all(const std::string& name, const Tensor& out, const std::vector<std::int64_t>& recv_elems,
                              const Tensor& in, const std::vector<std::int64_t>& send_elems) = 0;
  virtual void run_barrier(const std::string& name) = 0;

  // A backend's chance to learn that an operation is enqueued, and that it was dropped without being run.
  virtual Body watched(const std::string& name, Body body);

 private:
  bool moves_memory_of(DeviceKind kind) const final { return kind == DeviceKind::kCpu; }
  Body all_reduce_body(const std::string& name, const Tensor& data) final;
  Body reduce_scatter_body(const std::string& name, const Tensor& out, const Tensor& in) final;
  Body all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) final;
  Body broadcast_body(const std::string& name, const Tensor& data, int root) final;
  Body all_to_all_body(const std::string& name, const Tensor& out, std::vector<std::int64_t> recv_elems,
                       const Tensor& in, std::vector<std::int64_t> send_elems) final;
  Body barrier_body(const std::string& name) final;

  template <typename Run>
  Body body_of(const std::string& name, Run run);
};

}  // namespace strake::comm
