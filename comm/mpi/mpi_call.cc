#include "comm/mpi/mpi_call.h"

#include <fmt/format.h>

#include <string>

#include "runtime/base/error.h"
#include "runtime/base/log.h"

namespace strake::comm {
namespace {

std::string text_of(int result) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(result, text, &length) != MPI_SUCCESS) return fmt::format("error {}", result);
  return std::string(text, static_cast<std::size_t>(length));
}

}  // namespace

void check_mpi(int result, std::string_view call, std::string_view what, int peer) {
  if (result == MPI_SUCCESS) [[likely]]
    return;
  const std::string with = peer < 0 ? std::string() : fmt::format(" with rank {}", peer);
  throw CommError(fmt::format("'{}': {}{} failed: {}", what, call, with, text_of(result)), peer);
}

void log_mpi(int result, std::string_view call) noexcept {
  if (result != MPI_SUCCESS) Logger().error("{} failed: {}", call, text_of(result));
}

void require_not_given_up(const std::atomic<bool>& given_up, std::string_view what) {
  if (given_up.load(std::memory_order_relaxed)) [[unlikely]] {
    throw CommError(fmt::format("'{}': this rank has given up its communicator", what), -1);
  }
}

MPI_Comm duplicate(MPI_Comm parent, std::string_view what) {
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(parent, &comm), "MPI_Comm_dup", what);
  check_mpi(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", what);
  return comm;
}

}  // namespace strake::comm
