// MpiWorld: the ranks that mpirun or srun has started. Owns MPI between MPI_Init_thread and MPI_Finalize.
//
// Threads: the training thread makes and destroys it; MPI runs with MPI_THREAD_MULTIPLE, because communication
// streams and control use it at the same time, each with communicators of its own. One a process.
// Errors: CommError. A rank that ends by an exception must call Control::abort while its world exists: the
// other ranks may be blocked. If the world is destroyed by an exception all the same, it aborts the job
// with ExitCode::kPeerOrDeviceLost, since MPI_Finalize would wait for the others for ever.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/control.h"
#include "comm/roll_call.h"

namespace strake::comm {

class MpiWorld {
 public:
  // Throws CommError if the library does not grant MPI_THREAD_MULTIPLE.
  MpiWorld();
  ~MpiWorld();
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // "Open MPI v4.1.4, ...", as the library says at run time.
  static std::string library();
  // Ends this process with this exit code and, if MPI is up, the whole job. From any thread.
  [[noreturn]] static void abort(int exit_code);

  // Of all ranks. Collective: every rank makes the same ones in the same order. The world outlives them.
  std::unique_ptr<Communicator> make_communicator();
  std::unique_ptr<Control> make_control();
  std::unique_ptr<RollCall> make_roll_call();

 private:
  int rank_ = 0;
  int size_ = 1;
  const int exceptions_in_flight_;
};

}  // namespace strake::comm
