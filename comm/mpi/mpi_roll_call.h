// MpiRollCall: a roll call of the ranks that mpirun or srun has started (see mpi_world.h), with a communicator of its
// own. Messages have one size. A message to a rank that never takes it keeps its memory until the process ends.
#pragma once

#include <mpi.h>

#include <array>
#include <cstdint>
#include <list>

#include "comm/roll_call.h"

namespace strake::comm {

class MpiRollCall final : public RollCall {
 public:
  // Takes over `comm`, which returns errors.
  explicit MpiRollCall(MPI_Comm comm);
  ~MpiRollCall() override;
  MpiRollCall(const MpiRollCall&) = delete;
  MpiRollCall& operator=(const MpiRollCall&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void serve(const Handlers& handlers) override;
  void tell(int rank, std::string_view text) override;
  std::vector<std::optional<std::string>> ask(std::chrono::milliseconds limit, const Handlers& handlers) override;

 private:
  enum class Kind : std::uint32_t { kAsk = 1, kAnswer, kTell };
  struct Message {
    Kind kind;
    std::uint32_t text_bytes;
    std::uint64_t question;  // of the asking rank: an answer repeats it
    std::array<char, kMaxTextBytes> text;
  };
  struct Sent {
    Message message;
    MPI_Request request;
  };

  void send(int to, Kind kind, std::uint64_t question, std::string_view text);
  // The next message that has arrived, and from whom.
  std::optional<int> receive(Message& message);
  void forget_what_was_sent();

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  std::uint64_t questions_ = 0;
  std::vector<std::optional<std::string>> answers_;  // to the question at hand, by rank
  std::list<Sent> sent_;                             // on their way: MPI reads them
};

}  // namespace strake::comm
