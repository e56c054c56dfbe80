// MpiExchange: messages between this rank and its peers that are started together and waited for together.
//
// Messages between two ranks arrive in the order in which both sides name them. Each may have any length: MPI's
// int counts are hidden here. It keeps its lists, so that a step allocates nothing once they have grown.
// Both sides must have agreed on lengths before (MpiCommunicator::meet): MPI libraries do not all keep a message that
// is longer than its buffer inside it. Threads: one at a time. Errors: CommError naming the peer; also when a message
// is shorter or longer than expected, which means that the ranks disagree on what they do.
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace strake::comm {

class MpiExchange {
 public:
  // `world_ranks`: of the communicator's ranks, for messages. `given_up`: set by any thread, ends waiting. All outlive
  // this object.
  MpiExchange(MPI_Comm comm, const std::vector<int>& world_ranks, const std::atomic<bool>& given_up)
      : comm_(comm), world_ranks_(world_ranks), given_up_(given_up) {}
  MpiExchange(const MpiExchange&) = delete;
  MpiExchange& operator=(const MpiExchange&) = delete;

  // Start a message; `what` is for errors. The bytes must not be touched before wait() has returned.
  void receive(std::byte* into, std::int64_t size_bytes, int peer, const std::string& what);
  void send(const std::byte* from, std::int64_t size_bytes, int peer, const std::string& what);
  // Returns when everything started since the last wait is complete. If it throws, messages may still be
  // on their way: the communicator must not be used again.
  // `heard`, if given, is told the peer of each message that was received, as soon as it is there.
  void wait(const std::string& what, const std::function<void(int peer)>& heard = {});

 private:
  struct Part {
    int peer;
    int size_bytes;
    bool is_receive;
  };
  // Message pieces: below INT_MAX, and a whole number of pages.
  static constexpr std::int64_t kMaxPartBytes = std::int64_t{1} << 30;

  // Throws if this rank has given up: what has not arrived yet is not to be written any more.
  void leave_if_given_up(const std::string& what);

  MPI_Comm comm_;
  const std::vector<int>& world_ranks_;
  const std::atomic<bool>& given_up_;
  std::vector<MPI_Request> requests_;
  std::vector<Part> parts_;  // of requests_
  std::vector<MPI_Status> statuses_;
  std::vector<int> indices_;
};

}  // namespace strake::comm
