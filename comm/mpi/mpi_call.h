// What every file of the MPI backend needs: errors of MPI calls as CommError.
#pragma once

#include <mpi.h>

#include <atomic>
#include <string_view>

namespace strake::comm {

// REQUIRES: the communicator of the call has MPI_ERRORS_RETURN. Throws CommError with the library's text.
// `what` names the operation it was for; `peer` is a rank of the world, -1 if not known.
void check_mpi(int result, std::string_view call, std::string_view what, int peer = -1);

// The same for destructors: logs instead.
void log_mpi(int result, std::string_view call) noexcept;

// Throws CommError if this rank has given up its communicator: Communicator::interrupt.
void require_not_given_up(const std::atomic<bool>& given_up, std::string_view what);

// A duplicate of `parent` that returns errors. Collective.
MPI_Comm duplicate(MPI_Comm parent, std::string_view what);

}  // namespace strake::comm
