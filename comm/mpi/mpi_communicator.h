// MpiCommunicator: collectives of host memory over MPI, with a communicator of its own (see mpi_world.h).
//
// They run on the communication stream's worker thread, which is what makes MPI progress while the program
// computes: nonblocking messages, MPI_Test and a short sleep.
// A reduction is direct: rank r receives piece r from every peer, adds in rank order, and sends the sum back,
// in rounds of at most kRoundBytes a piece; the raw pieces of a round travel while the round before is added.
// Memory: 2 * (size - 1) pieces of a round, at most 2 * kStagingBytes, grown in the first reductions and kept.
#pragma once

#include <mpi.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "comm/host_communicator.h"
#include "comm/mpi/mpi_exchange.h"

namespace strake::comm {

class MpiCommunicator final : public HostCommunicator {
 public:
  // Takes over `comm`, which returns errors.
  explicit MpiCommunicator(MPI_Comm comm);
  ~MpiCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "mpi"; }
  std::unique_ptr<Communicator> split(int color, int key) override;

 protected:
  void run_all_reduce(const std::string& name, const Tensor& data) override;
  void run_reduce_scatter(const std::string& name, const Tensor& out, const Tensor& in) override;
  void run_all_gather(const std::string& name, const Tensor& out, const Tensor& in) override;
  void run_broadcast(const std::string& name, const Tensor& data, int root) override;
  void run_all_to_all(const std::string& name, const Tensor& out, const std::vector<std::int64_t>& recv_elems,
                      const Tensor& in, const std::vector<std::int64_t>& send_elems) override;
  void run_barrier(const std::string& name) override;

 private:
  static constexpr std::int64_t kRoundBytes = std::int64_t{1} << 20;    // of a piece; fits a core's cache
  static constexpr std::int64_t kStagingBytes = std::int64_t{8} << 20;  // of a round, all peers

  // The sum over ranks of in's piece of this rank, at `out`; with `share`, also sent to every rank, at the piece's
  // place in `in`.
  struct Reduction {
    DType dtype;
    std::byte* in;  // all ranks' pieces
    std::byte* out;
    // Of rank r: where its piece lies in `in`.
    std::vector<std::int64_t> piece_begin_elems;
    std::vector<std::int64_t> piece_elems;
    bool share;
  };
  void reduce(const std::string& name, const Reduction& reduction);
  // Peers in the order rank + 1, rank + 2, ..., so that not everybody writes to rank 0 first.
  int peer(int distance) const { return (rank_ + distance) % size_; }

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  std::vector<int> world_ranks_;  // of the group's ranks
  std::array<MpiExchange, 2> raw_;
  std::array<MpiExchange, 2> reduced_;
  std::array<std::vector<std::byte>, 2> staging_;  // raw pieces of the peers, in rank order
};

}  // namespace strake::comm
