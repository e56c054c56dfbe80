#include "comm/mpi/mpi_world.h"

#include <fmt/format.h>
#include <mpi.h>

#include <cstdlib>
#include <exception>

#include "comm/mpi/mpi_call.h"
#include "comm/mpi/mpi_communicator.h"
#include "comm/mpi/mpi_control.h"
#include "comm/mpi/mpi_roll_call.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"

namespace strake::comm {

MpiWorld::MpiWorld() : exceptions_in_flight_(std::uncaught_exceptions()) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  STRAKE_CHECK(initialized == 0, "one MpiWorld a process");
  int granted = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &granted), "MPI_Init_thread", "start");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (granted < MPI_THREAD_MULTIPLE) {
    const std::string version = library();
    MPI_Finalize();
    throw CommError(fmt::format("the MPI library ({}) does not grant MPI_THREAD_MULTIPLE, which communication beside "
                                "computation needs; use one that is built with it, such as the system's Open MPI 4",
                                version),
                    -1);
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
}

MpiWorld::~MpiWorld() {
  if (std::uncaught_exceptions() > exceptions_in_flight_ && size_ > 1) {
    Logger(rank_, size_).error("an exception ends this rank; aborting the job, since the other ranks may wait for it");
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::kPeerOrDeviceLost));
  }
  log_mpi(MPI_Finalize(), "MPI_Finalize");
}

std::string MpiWorld::library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  return std::string(text, static_cast<std::size_t>(length));
}

void MpiWorld::abort(int exit_code) {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized != 0 && finalized == 0) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

std::unique_ptr<Communicator> MpiWorld::make_communicator() {
  return std::make_unique<MpiCommunicator>(duplicate(MPI_COMM_WORLD, "communicator"));
}

std::unique_ptr<Control> MpiWorld::make_control() {
  return std::make_unique<MpiControl>(duplicate(MPI_COMM_WORLD, "control"));
}

std::unique_ptr<RollCall> MpiWorld::make_roll_call() {
  return std::make_unique<MpiRollCall>(duplicate(MPI_COMM_WORLD, "roll call"));
}

}  // namespace strake::comm
