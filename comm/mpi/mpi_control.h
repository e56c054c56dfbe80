// MpiControl: control between ranks started by mpirun or srun (see mpi_world.h). Waiting polls with a short
// sleep, so that a rank that waits at a barrier does not take the core of one that still computes.
//
// Every call begins with one all-gather of a record of fixed size: what the rank calls, how long its text is, and
// the text itself if it is short. So no call can receive more than it has room for, and ranks that are at different
// calls all learn it (DisagreementError). Longer texts follow in a message of their own.
#pragma once

#include <mpi.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
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
  std::unique_ptr<Control> duplicate() override;
  [[noreturn]] void abort(int exit_code) override;

 private:
  enum class Call : std::uint32_t { kPost = 1, kBarrier, kAllGather, kBroadcast };
  struct Record {
    Call call;
    std::uint32_t root;  // of a broadcast
    std::uint64_t text_bytes;
    std::array<std::byte, 240> text;  // if it fits
  };
  static_assert(sizeof(Record) == 256 && std::is_trivially_copyable_v<Record>, "travels as bytes");
  static constexpr std::size_t kShortBytes = sizeof(Record::text);

  static const char* name_of(Call call);
  static Record record_of(Call call, std::string_view text, int root = 0);
  static std::string_view text_of(const Record& record);
  static void await(MPI_Request& request, std::string_view call);
  MPI_Request start(const Record& mine, std::vector<Record>& all);
  // Every rank is at the call of `mine`; texts of `post` are of one length.
  void require_agreement(const Record& mine, const std::vector<Record>& all) const;
  std::vector<Record> meet(const Record& mine);

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  bool pending_ = false;  // a post is not finished
  MPI_Request request_ = MPI_REQUEST_NULL;
  std::unique_ptr<Record> posted_ = std::make_unique<Record>();
  std::vector<Record> answers_;  // to posted_
};

}  // namespace strake::comm
