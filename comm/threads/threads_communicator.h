// ThreadsCommunicator: collectives between ranks that are threads of one process (see threads_world.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/host_communicator.h"
#include "comm/threads/threads_group.h"
#include "comm/threads/threads_world.h"

namespace strake::comm {

class ThreadsCommunicator final : public HostCommunicator {
 public:
  ThreadsCommunicator(ThreadsWorld& world, ThreadsGroup& group, int rank) : world_(world), group_(group), rank_(rank) {}
  ~ThreadsCommunicator() override { group_.leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return group_.size(); }
  std::string backend() const override { return "threads"; }
  std::unique_ptr<Communicator> split(int color, int key) override;

 protected:
  void run_all_reduce(const std::string& name, const Tensor& data) override;
  void run_reduce_scatter(const std::string& name, const Tensor& out, const Tensor& in) override;
  void run_all_gather(const std::string& name, const Tensor& out, const Tensor& in) override;
  void run_broadcast(const std::string& name, const Tensor& data, int root) override;
  void run_all_to_all(const std::string& name, const Tensor& out, const std::vector<std::int64_t>& recv_elems,
                      const Tensor& in, const std::vector<std::int64_t>& send_elems) override;
  void run_barrier(const std::string& name) override;
  Body watched(const std::string& name, Body body) override;
  void interrupt() noexcept override;  // the whole world's: its ranks fail together

 private:
  using Notes = std::vector<CollectiveNote>;
  // Waits until every rank is at this collective, does this rank's part, and waits until every rank has.
  // Throws CommError on every rank, before any part is done, if the ranks' notes do not fit.
  void meet(const std::string& name, const CollectiveNote& mine, const std::function<void(const Notes&)>& part);

  ThreadsWorld& world_;
  ThreadsGroup& group_;
  const int rank_;
  int splits_ = 0;
};

}  // namespace strake::comm
