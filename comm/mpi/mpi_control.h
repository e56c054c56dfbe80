// MpiControl: control between ranks started by mpirun or srun (see mpi_world.h). Waiting polls with a short
// sleep, so that a rank that waits at a barrier does not take the core of one that still computes.
#pragma once

#include <mpi.h>

#include <string>
#include <vector>

#include "comm/control.h"

namespace strake::comm {

class MpiControl final : public Control {
 public:
  // Takes over `comm`, which returns errors.
  explicit MpiControl(MPI_Comm comm);
  ~MpiControl() override;
  MpiControl(const MpiControl&) = delete;
  MpiControl& operator=(const MpiControl&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void post(std::span<const double> values) override;
  std::vector<double> finish() override;
  void barrier() override;
  std::vector<std::string> all_gather(std::string_view text) override;
  std::string broadcast(std::string_view text, int root) override;
  [[noreturn]] void abort(int exit_code) override;

 private:
  static void await(MPI_Request& request, std::string_view call);

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  bool pending_ = false;  // a post is not finished
  MPI_Request request_ = MPI_REQUEST_NULL;
  std::vector<double> mine_;
  std::vector<double> all_;
};

}  // namespace strake::comm
