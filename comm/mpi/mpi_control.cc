#include "comm/mpi/mpi_control.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "comm/mpi/mpi_call.h"
#include "comm/mpi/mpi_world.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/poll_until.h"

namespace strake::comm {

MpiControl::MpiControl(MPI_Comm comm) : comm_(comm) {
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", "control");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", "control");
}

MpiControl::~MpiControl() {
  if (pending_) {
    // The rank ends without its peers. MPI may still read and write here: leave the memory to it.
    Logger(rank_, size_).error("control ends with a post that was not finished");
    static_cast<void>(posted_.release());
    static_cast<void>(new std::vector<Record>(std::move(answers_)));
  }
  log_mpi(MPI_Comm_free(&comm_), "MPI_Comm_free");
}

const char* MpiControl::name_of(Call call) {
  switch (call) {
    case Call::kPost:
      return "post";
    case Call::kBarrier:
      return "barrier";
    case Call::kAllGather:
      return "all_gather";
    case Call::kBroadcast:
      return "broadcast";
  }
  return "?";
}

MpiControl::Record MpiControl::record_of(Call call, std::string_view text, int root) {
  STRAKE_CHECK(text.size() <= INT_MAX, "control is for small data");
  Record record{.call = call, .root = static_cast<std::uint32_t>(root), .text_bytes = text.size(), .text = {}};
  if (!text.empty() && text.size() <= kShortBytes) std::memcpy(record.text.data(), text.data(), text.size());
  return record;
}

std::string_view MpiControl::text_of(const Record& record) {
  return {reinterpret_cast<const char*>(record.text.data()), record.text_bytes};
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

MPI_Request MpiControl::start(const Record& mine, std::vector<Record>& all) {
  all.resize(static_cast<std::size_t>(size_));
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, comm_, &request),
            "MPI_Iallgather", "control");
  return request;
}

void MpiControl::require_agreement(const Record& mine, const std::vector<Record>& all) const {
  for (std::size_t peer = 0; peer < all.size(); ++peer) {
    const Record& its = all[peer];
    if (its.call == mine.call && its.root == mine.root &&
        (mine.call != Call::kPost || its.text_bytes == mine.text_bytes)) {
      continue;
    }
    throw DisagreementError(
        fmt::format("control: the ranks are not at the same call: rank {} is at {} ({} bytes, root {}), rank {} at {} "
                    "({} bytes, root {})",
                    rank_, name_of(mine.call), mine.text_bytes, mine.root, peer, name_of(its.call), its.text_bytes,
                    its.root),
        static_cast<int>(peer));
  }
}

std::vector<MpiControl::Record> MpiControl::meet(const Record& mine) {
  std::vector<Record> all;
  MPI_Request request = start(mine, all);
  await(request, "MPI_Iallgather");
  require_agreement(mine, all);
  return all;
}

void MpiControl::post(std::span<const double> values) {
  STRAKE_CHECK(!pending_, "the previous post was not finished");
  STRAKE_CHECK(values.size_bytes() <= kShortBytes, "a post is small");
  const auto bytes = std::as_bytes(values);
  *posted_ = record_of(Call::kPost, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  request_ = start(*posted_, answers_);
  pending_ = true;
}

std::vector<double> MpiControl::finish() {
  STRAKE_CHECK(pending_, "nothing was posted");
  await(request_, "MPI_Iallgather");
  pending_ = false;
  require_agreement(*posted_, answers_);
  std::vector<double> values;
  for (const Record& record : answers_) {
    const std::size_t before = values.size();
    values.resize(before + record.text_bytes / sizeof(double));
    if (record.text_bytes > 0) std::memcpy(values.data() + before, record.text.data(), record.text_bytes);
  }
  return values;
}

void MpiControl::barrier() { meet(record_of(Call::kBarrier, {})); }

std::vector<std::string> MpiControl::all_gather(std::string_view text) {
  const std::vector<Record> records = meet(record_of(Call::kAllGather, text));
  std::vector<std::string> texts;
  const auto is_short = [](const Record& record) { return record.text_bytes <= kShortBytes; };
  if (std::ranges::all_of(records, is_short)) {
    for (const Record& record : records) texts.emplace_back(text_of(record));
    return texts;
  }
  std::vector<int> sizes, begins;
  std::int64_t total_bytes = 0;
  for (const Record& record : records) {
    begins.push_back(static_cast<int>(total_bytes));
    sizes.push_back(static_cast<int>(record.text_bytes));
    total_bytes += sizes.back();
    STRAKE_CHECK(total_bytes <= INT_MAX, "control is for small data");
  }
  std::string joined(static_cast<std::size_t>(total_bytes), '\0');
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallgatherv(text.data(), static_cast<int>(text.size()), MPI_CHAR, joined.data(), sizes.data(),
                            begins.data(), MPI_CHAR, comm_, &request),
            "MPI_Iallgatherv", "control");
  await(request, "MPI_Iallgatherv");
  for (std::size_t peer = 0; peer < sizes.size(); ++peer) {
    texts.push_back(joined.substr(static_cast<std::size_t>(begins[peer]), static_cast<std::size_t>(sizes[peer])));
  }
  return texts;
}

std::string MpiControl::broadcast(std::string_view text, int root) {
  STRAKE_CHECK(root >= 0 && root < size_, "no such root");
  const std::vector<Record> records =
      meet(record_of(Call::kBroadcast, rank_ == root ? text : std::string_view(), root));
  const Record& told = records[static_cast<std::size_t>(root)];
  if (told.text_bytes <= kShortBytes) return std::string(text_of(told));
  std::string out = rank_ == root ? std::string(text) : std::string(told.text_bytes, '\0');
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibcast(out.data(), static_cast<int>(out.size()), MPI_CHAR, root, comm_, &request), "MPI_Ibcast",
            "control");
  await(request, "MPI_Ibcast");
  return out;
}

std::unique_ptr<Control> MpiControl::duplicate() {
  return std::make_unique<MpiControl>(strake::comm::duplicate(comm_, "control of another thread"));
}

void MpiControl::abort(int exit_code) { MpiWorld::abort(exit_code); }

}  // namespace strake::comm
