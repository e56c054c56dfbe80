#include "comm/mpi/mpi_exchange.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/mpi/mpi_call.h"
#include "runtime/base/error.h"

namespace strake::comm {
namespace {

constexpr int kTag = 1;  // one is enough: MPI keeps the order of messages between two ranks

}  // namespace

void MpiExchange::receive(std::byte* into, std::int64_t size_bytes, int peer, const std::string& what) {
  do {
    const int part_bytes = static_cast<int>(std::min(size_bytes, kMaxPartBytes));
    parts_.push_back({peer, part_bytes, true});
    check_mpi(MPI_Irecv(into, part_bytes, MPI_BYTE, peer, kTag, comm_, &requests_.emplace_back(MPI_REQUEST_NULL)),
              "MPI_Irecv", what, world_ranks_[static_cast<std::size_t>(peer)]);
    into += part_bytes;
    size_bytes -= part_bytes;
  } while (size_bytes > 0);
}

void MpiExchange::send(const std::byte* from, std::int64_t size_bytes, int peer, const std::string& what) {
  do {
    const int part_bytes = static_cast<int>(std::min(size_bytes, kMaxPartBytes));
    parts_.push_back({peer, part_bytes, false});
    check_mpi(MPI_Isend(from, part_bytes, MPI_BYTE, peer, kTag, comm_, &requests_.emplace_back(MPI_REQUEST_NULL)),
              "MPI_Isend", what, world_ranks_[static_cast<std::size_t>(peer)]);
    from += part_bytes;
    size_bytes -= part_bytes;
  } while (size_bytes > 0);
}

void MpiExchange::wait(const std::string& what) {
  statuses_.resize(requests_.size());
  int result = MPI_SUCCESS;
  poll_until([&] {
    int complete = 0;
    result = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &complete, statuses_.data());
    return complete != 0 || result != MPI_SUCCESS;
  });
  if (result != MPI_SUCCESS && result != MPI_ERR_IN_STATUS) check_mpi(result, "MPI_Testall", what);
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    const int peer = world_ranks_[static_cast<std::size_t>(part.peer)];
    // Without MPI_ERR_IN_STATUS the library leaves the error fields alone.
    if (result == MPI_ERR_IN_STATUS && statuses_[i].MPI_ERROR != MPI_ERR_PENDING) {
      check_mpi(statuses_[i].MPI_ERROR, part.is_receive ? "receive" : "send", what, peer);
    }
    int received_bytes = part.size_bytes;
    if (part.is_receive && result == MPI_SUCCESS) MPI_Get_count(&statuses_[i], MPI_BYTE, &received_bytes);
    if (received_bytes != part.size_bytes) {
      throw CommError(
          fmt::format("'{}': rank {} sends {} bytes where {} were expected: the ranks disagree on what they "
                      "reduce",
                      what, peer, received_bytes, part.size_bytes),
          peer);
    }
  }
  if (result != MPI_SUCCESS) check_mpi(result, "MPI_Testall", what);
  requests_.clear();
  parts_.clear();
}

}  // namespace strake::comm
