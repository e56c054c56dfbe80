// PlanCommunicator: a rank of a group that is not there. What its collectives check, declare and cost is known all the
// same (communicator.h), so a step can be planned for any number of ranks; on any device but a plan device they abort.
// Threads: the training thread. Errors: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "runtime/base/check.h"

namespace strake::comm {

class PlanCommunicator final : public Communicator {
 public:
  // `staging_bytes`: that it would keep. REQUIRES: 0 <= rank < size.
  PlanCommunicator(int rank, int size, std::size_t staging_bytes = 0)
      : rank_(rank), size_(size), staging_bytes_(staging_bytes) {
    STRAKE_CHECK(rank >= 0 && rank < size, "no such rank in a group of that size");
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "plan"; }
  std::size_t staging_bytes() const override { return staging_bytes_; }
  // REQUIRES: nobody calls it: which ranks give the same color is for the others to say.
  std::unique_ptr<Communicator> split(int, int) override { check_failed("split", "a planned group cannot be split"); }

 protected:
  bool moves_memory_of(DeviceKind) const override { return false; }  // so no body is ever asked for
  Body all_reduce_body(const std::string&, const Tensor&) override { return {}; }
  Body reduce_scatter_body(const std::string&, const Tensor&, const Tensor&) override { return {}; }
  Body all_gather_body(const std::string&, const Tensor&, const Tensor&) override { return {}; }
  Body broadcast_body(const std::string&, const Tensor&, int) override { return {}; }
  Body all_to_all_body(const std::string&, const Tensor&, std::vector<std::int64_t>, const Tensor&,
                       std::vector<std::int64_t>) override {
    return {};
  }
  Body barrier_body(const std::string&) override { return {}; }

 private:
  int rank_, size_;
  std::size_t staging_bytes_;
};

}  // namespace strake::comm
