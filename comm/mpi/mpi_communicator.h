// MpiCommunicator: collectives of host memory over MPI, with a communicator of its own (see mpi_world.h).
//
// They run on the communication stream's worker thread, which is what makes MPI progress while the program
// computes: nonblocking messages, MPI_Test and a short sleep.
// A reduction is direct: rank r receives piece r from every peer, adds in rank order, and sends the sum back,
// in rounds of at most kRoundBytes a piece; the raw pieces of a round travel while the round before is added.
// Before a byte of a tensor is received, the ranks of a collective tell each other what they call, in messages of one
// size: ranks that disagree get a DisagreementError, and no message can be longer than its buffer.
// Memory: 2 * (size - 1) pieces of a round, at most 2 * kStagingBytes, grown in the first reductions and kept.
#pragma once

#include <mpi.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <type_traits>
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
  std::string waits_for() const override;
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
  void interrupt() noexcept override { given_up_.store(true, std::memory_order_relaxed); }

 private:
  static constexpr std::int64_t kRoundBytes = std::int64_t{1} << 20;    // of a piece; fits a core's cache
  static constexpr std::int64_t kStagingBytes = std::int64_t{8} << 20;  // of a round, all peers

  // What a rank says of a collective when it gets there.
  struct Note {
    enum class Kind : std::int64_t { kAllReduce = 1, kReduceScatter, kAllGather, kBroadcast, kAllToAll, kBarrier };
    Kind kind;
    std::int64_t number;  // collectives before it
    std::int64_t dtype = 0;
    std::int64_t elems = 0;  // that all ranks agree on
    std::int64_t root = -1;
    std::int64_t sent_elems = 0;  // all_to_all: from the rank that says so to the one that reads it
  };
  static_assert(sizeof(Note) == 48 && std::is_trivially_copyable_v<Note>, "travels as bytes");
  static std::string describe(const Note& note);
  // Returns when every rank is at the collective that `mine` describes. `sent_elems`, `expected_elems`: by rank, or
  // empty.
  void meet(const std::string& name, Note mine, std::span<const std::int64_t> sent_elems = {},
            std::span<const std::int64_t> expected_elems = {});

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
  std::atomic<bool> given_up_{false};
  std::array<MpiExchange, 2> raw_;
  std::array<MpiExchange, 2> reduced_;
  std::vector<Note> said_, heard_;  // of the collective at hand, by rank
  std::int64_t collectives_ = 0;    // met
  // For waits_for(), which another thread calls when something hangs and only then: taking it orders nothing else.
  mutable std::mutex at_mutex_;
  std::string at_;                                 // the collective at hand; empty: none
  std::vector<bool> arrived_;                      // at it, by rank
  std::array<std::vector<std::byte>, 2> staging_;  // raw pieces of the peers, in rank order
};

}  // namespace strake::comm
