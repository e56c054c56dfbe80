// HostCommunicator: what the communicators of host memory (threads/, mpi/) have in common. It checks
// the call, declares the operation and enqueues it; a backend only says how bytes travel, in run_* functions
// that are called on the stream's worker thread and return when this rank is done.
//
// A group of one moves nothing: its collectives are copies of the device or nothing at all, enqueued all the
// same, so that the schedule looks alike; it works on every device. Larger groups need the CPU device.
// Threads, errors: as Communicator. An exception of a run_* function poisons the device.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace strake::comm {

class HostCommunicator : public Communicator {
 public:
  void all_reduce(Stream& stream, Label label, const Tensor& data) final;
  void reduce_scatter(Stream& stream, Label label, const Tensor& out, const Tensor& in) final;
  void all_gather(Stream& stream, Label label, const Tensor& out, const Tensor& in) final;
  void broadcast(Stream& stream, Label label, const Tensor& data, int root) final;
  void all_to_all(Stream& stream, Label label, const Tensor& out, std::span<const std::int64_t> recv_elems,
                  const Tensor& in, std::span<const std::int64_t> send_elems) final;
  void barrier(Stream& stream, Label label) final;

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
  using Run = std::function<void(const std::string& name)>;
  // `alone`: the body in a group of one.
  void enqueue(Stream& stream, const Operation& operation, Body alone, Run run);
};

}  // namespace strake::comm
