#include "comm/mpi/mpi_call.h"

#include <fmt/format.h>
#include <sys/prctl.h>

#include <string>
#include <thread>

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

void sleep_precisely(std::chrono::nanoseconds duration) {
  // Of the calling thread: a communication stream's worker, or the training thread in control.
  [[maybe_unused]] thread_local const int slack_is_set = prctl(PR_SET_TIMERSLACK, 5000UL);
  std::this_thread::sleep_for(duration);
}

MPI_Comm duplicate(MPI_Comm parent, std::string_view what) {
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(parent, &comm), "MPI_Comm_dup", what);
  check_mpi(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", what);
  return comm;
}

}  // namespace strake::comm
