#include "comm/mpi/mpi_control.h"

#include <fmt/format.h>

#include <climits>
#include <cstdlib>
#include <utility>

#include "comm/mpi/mpi_call.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"

namespace strake::comm {

MpiControl::MpiControl(MPI_Comm comm) : comm_(comm) {
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", "control");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", "control");
}

MpiControl::~MpiControl() {
  if (pending_) {
    // The rank ends without its peers. MPI may still write here: leave the memory to it.
    Logger(rank_, size_).error("control ends with a post that was not finished");
    static_cast<void>(new std::vector<double>(std::move(mine_)));
    static_cast<void>(new std::vector<double>(std::move(all_)));
  }
  log_mpi(MPI_Comm_free(&comm_), "MPI_Comm_free");
}

void MpiControl::await(MPI_Request& request, std::string_view call) {
  int result = MPI_SUCCESS;
  poll_until([&] {
    int complete = 0;
    result = MPI_Test(&request, &complete, MPI_STATUS_IGNORE);
    return complete != 0 || result != MPI_SUCCESS;
  });
  check_mpi(result, call, "control");
}

void MpiControl::post(std::span<const double> values) {
  STRAKE_CHECK(!pending_, "the previous post was not finished");
  mine_.assign(values.begin(), values.end());
  all_.resize(mine_.size() * static_cast<std::size_t>(size_));
  const int values_each = static_cast<int>(mine_.size());
  check_mpi(
      MPI_Iallgather(mine_.data(), values_each, MPI_DOUBLE, all_.data(), values_each, MPI_DOUBLE, comm_, &request_),
      "MPI_Iallgather", "control");
  pending_ = true;
}

std::vector<double> MpiControl::finish() {
  STRAKE_CHECK(pending_, "nothing was posted");
  await(request_, "MPI_Iallgather");
  pending_ = false;
  return all_;
}

void MpiControl::barrier() {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(comm_, &request), "MPI_Ibarrier", "control");
  await(request, "MPI_Ibarrier");
}

std::vector<std::string> MpiControl::all_gather(std::string_view text) {
  STRAKE_CHECK(text.size() <= INT_MAX, "control is for small data");
  const int mine_bytes = static_cast<int>(text.size());
  std::vector<int> sizes(static_cast<std::size_t>(size_));
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallgather(&mine_bytes, 1, MPI_INT, sizes.data(), 1, MPI_INT, comm_, &request), "MPI_Iallgather",
            "control");
  await(request, "MPI_Iallgather");

  std::vector<int> begins;
  std::int64_t total_bytes = 0;
  for (const int size : sizes) {
    begins.push_back(static_cast<int>(total_bytes));
    total_bytes += size;
    STRAKE_CHECK(total_bytes <= INT_MAX, "control is for small data");
  }
  std::string joined(static_cast<std::size_t>(total_bytes), '\0');
  check_mpi(MPI_Iallgatherv(text.data(), mine_bytes, MPI_CHAR, joined.data(), sizes.data(), begins.data(), MPI_CHAR,
                            comm_, &request),
            "MPI_Iallgatherv", "control");
  await(request, "MPI_Iallgatherv");
  std::vector<std::string> texts;
  for (std::size_t peer = 0; peer < sizes.size(); ++peer) {
    texts.push_back(joined.substr(static_cast<std::size_t>(begins[peer]), static_cast<std::size_t>(sizes[peer])));
  }
  return texts;
}

std::string MpiControl::broadcast(std::string_view text, int root) {
  STRAKE_CHECK(root >= 0 && root < size_, "no such root");
  STRAKE_CHECK(rank_ != root || text.size() <= INT_MAX, "control is for small data");
  int size_bytes = static_cast<int>(text.size());
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibcast(&size_bytes, 1, MPI_INT, root, comm_, &request), "MPI_Ibcast", "control");
  await(request, "MPI_Ibcast");
  std::string out = rank_ == root ? std::string(text) : std::string(static_cast<std::size_t>(size_bytes), '\0');
  check_mpi(MPI_Ibcast(out.data(), size_bytes, MPI_CHAR, root, comm_, &request), "MPI_Ibcast", "control");
  await(request, "MPI_Ibcast");
  return out;
}

void MpiControl::abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace strake::comm
