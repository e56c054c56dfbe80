#include "comm/mpi/mpi_exchange.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/mpi/mpi_call.h"
#include "runtime/base/error.h"
#include "runtime/base/poll_until.h"

namespace strake::comm {
namespace {

constexpr int kPartTag = 1;  // one is enough: MPI keeps the order of messages between two ranks

}  // namespace

void MpiExchange::receive(std::byte* into, std::int64_t size_bytes, int peer, const std::string& what) {
  do {
    const int part_bytes = static_cast<int>(std::min(size_bytes, kMaxPartBytes));
    parts_.push_back({peer, part_bytes, true});
    check_mpi(MPI_Irecv(into, part_bytes, MPI_BYTE, peer, kPartTag, comm_, &requests_.emplace_back(MPI_REQUEST_NULL)),
              "MPI_Irecv", what, world_ranks_[static_cast<std::size_t>(peer)]);
    into += part_bytes;
    size_bytes -= part_bytes;
  } while (size_bytes > 0);
}

void MpiExchange::send(const std::byte* from, std::int64_t size_bytes, int peer, const std::string& what) {
  do {
    const int part_bytes = static_cast<int>(std::min(size_bytes, kMaxPartBytes));
    parts_.push_back({peer, part_bytes, false});
    check_mpi(MPI_Isend(from, part_bytes, MPI_BYTE, peer, kPartTag, comm_, &requests_.emplace_back(MPI_REQUEST_NULL)),
              "MPI_Isend", what, world_ranks_[static_cast<std::size_t>(peer)]);
    from += part_bytes;
    size_bytes -= part_bytes;
  } while (size_bytes > 0);
}

void MpiExchange::leave_if_given_up(const std::string& what) {
  if (!given_up_.load(std::memory_order_relaxed)) [[likely]]
    return;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL || !parts_[i].is_receive) continue;
    log_mpi(MPI_Cancel(&requests_[i]), "MPI_Cancel");
    log_mpi(MPI_Request_free(&requests_[i]), "MPI_Request_free");
  }
  require_not_given_up(given_up_, what);
}

void MpiExchange::wait(const std::string& what, const std::function<void(int peer)>& heard) {
  statuses_.resize(requests_.size());
  indices_.resize(requests_.size());
  std::size_t ended = 0;
  poll_until([&] {
    leave_if_given_up(what);
    int count = 0;
    const int result =
        MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, indices_.data(), statuses_.data());
    if (result != MPI_SUCCESS && result != MPI_ERR_IN_STATUS) check_mpi(result, "MPI_Testsome", what);
    for (int i = 0; i < count; ++i) {
      const Part& part = parts_[static_cast<std::size_t>(indices_[static_cast<std::size_t>(i)])];
      const MPI_Status& status = statuses_[static_cast<std::size_t>(i)];
      const int peer = world_ranks_[static_cast<std::size_t>(part.peer)];
      // Without MPI_ERR_IN_STATUS the library leaves the error fields alone.
      if (result == MPI_ERR_IN_STATUS) check_mpi(status.MPI_ERROR, part.is_receive ? "receive" : "send", what, peer);
      int received_bytes = part.size_bytes;
      if (part.is_receive) MPI_Get_count(&status, MPI_BYTE, &received_bytes);
      if (received_bytes != part.size_bytes) {
        throw DisagreementError(fmt::format("'{}': rank {} sends {} bytes where {} were expected: the ranks disagree",
                                            what, peer, received_bytes, part.size_bytes),
                                peer);
      }
      if (part.is_receive && heard) heard(part.peer);
      ++ended;
    }
    return ended == requests_.size();
  });
  requests_.clear();
  parts_.clear();
}

}  // namespace strake::comm
