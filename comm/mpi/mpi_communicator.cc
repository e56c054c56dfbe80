#include "comm/mpi/mpi_communicator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/mpi/mpi_call.h"
#include "comm/rank_order_sum.h"
#include "runtime/base/error.h"
#include "runtime/base/poll_until.h"
#include "runtime/device/cpu/cpu_memory.h"

namespace strake::comm {
namespace {

std::vector<int> ranks_in_world(MPI_Comm comm, int size) {
  std::vector<int> ranks(static_cast<std::size_t>(size));
  for (int i = 0; i < size; ++i) ranks[static_cast<std::size_t>(i)] = i;
  std::vector<int> world_ranks(ranks.size());
  MPI_Group group = MPI_GROUP_NULL;
  MPI_Group world = MPI_GROUP_NULL;
  check_mpi(MPI_Comm_group(comm, &group), "MPI_Comm_group", "communicator");
  check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group", "communicator");
  check_mpi(MPI_Group_translate_ranks(group, size, ranks.data(), world, world_ranks.data()),
            "MPI_Group_translate_ranks", "communicator");
  MPI_Group_free(&group);
  MPI_Group_free(&world);
  return world_ranks;
}

int rank_in(MPI_Comm comm) {
  int rank = 0;
  check_mpi(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank", "communicator");
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 1;
  check_mpi(MPI_Comm_size(comm, &size), "MPI_Comm_size", "communicator");
  return size;
}

void await(MPI_Request request, std::string_view call, const std::string& what, const std::atomic<bool>& given_up) {
  int result = MPI_SUCCESS;
  poll_until([&] {
    int complete = 0;
    result = MPI_Test(&request, &complete, MPI_STATUS_IGNORE);
    require_not_given_up(given_up, what);
    return complete != 0 || result != MPI_SUCCESS;
  });
  check_mpi(result, call, what);
}

}  // namespace

MpiCommunicator::MpiCommunicator(MPI_Comm comm)
    : comm_(comm),
      rank_(rank_in(comm)),
      size_(size_of(comm)),
      world_ranks_(ranks_in_world(comm, size_)),
      raw_{{{comm, world_ranks_, given_up_}, {comm, world_ranks_, given_up_}}},
      reduced_{{{comm, world_ranks_, given_up_}, {comm, world_ranks_, given_up_}}},
      said_(static_cast<std::size_t>(size_)),
      heard_(static_cast<std::size_t>(size_)),
      arrived_(static_cast<std::size_t>(size_)) {}

MpiCommunicator::~MpiCommunicator() { log_mpi(MPI_Comm_free(&comm_), "MPI_Comm_free"); }

std::unique_ptr<Communicator> MpiCommunicator::split(int color, int key) {
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm_, color < 0 ? MPI_UNDEFINED : color, key, &part), "MPI_Comm_split", "split");
  if (part == MPI_COMM_NULL) return nullptr;
  check_mpi(MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", "split");
  return std::make_unique<MpiCommunicator>(part);
}

std::string MpiCommunicator::describe(const Note& note) {
  const auto kind = [&]() -> const char* {
    switch (note.kind) {
      case Note::Kind::kAllReduce:
        return "all_reduce";
      case Note::Kind::kReduceScatter:
        return "reduce_scatter";
      case Note::Kind::kAllGather:
        return "all_gather";
      case Note::Kind::kBroadcast:
        return "broadcast";
      case Note::Kind::kAllToAll:
        return "all_to_all";
      case Note::Kind::kBarrier:
        return "barrier";
    }
    return "?";
  }();
  return fmt::format("collective {}, {} of {} {} (root {})", note.number, kind, note.elems,
                     strake::name_of(static_cast<DType>(note.dtype)), note.root);
}

void MpiCommunicator::meet(const std::string& name, Note mine, std::span<const std::int64_t> sent_elems,
                           std::span<const std::int64_t> expected_elems) {
  mine.number = collectives_++;
  {
    const std::lock_guard lock(at_mutex_);
    at_ = name;
    std::fill(arrived_.begin(), arrived_.end(), false);
    arrived_[static_cast<std::size_t>(rank_)] = true;
  }
  const auto bytes = [](Note& note) { return reinterpret_cast<std::byte*>(&note); };
  MpiExchange& exchange = raw_[0];
  for (int distance = 1; distance < size_; ++distance) {
    const int from = peer(size_ - distance);
    exchange.receive(bytes(heard_[static_cast<std::size_t>(from)]), sizeof(Note), from, name);
  }
  for (int distance = 1; distance < size_; ++distance) {
    const auto to = static_cast<std::size_t>(peer(distance));
    said_[to] = mine;
    if (!sent_elems.empty()) said_[to].sent_elems = sent_elems[to];
    exchange.send(bytes(said_[to]), sizeof(Note), static_cast<int>(to), name);
  }
  exchange.wait(name, [&](int from) {
    const std::lock_guard lock(at_mutex_);
    arrived_[static_cast<std::size_t>(from)] = true;
  });
  for (int from = 0; from < size_; ++from) {
    if (from == rank_) continue;
    const Note& its = heard_[static_cast<std::size_t>(from)];
    const int world_rank = world_ranks_[static_cast<std::size_t>(from)];
    const int own_world_rank = world_ranks_[static_cast<std::size_t>(rank_)];
    if (its.kind != mine.kind || its.number != mine.number || its.dtype != mine.dtype || its.elems != mine.elems ||
        its.root != mine.root) {
      throw DisagreementError(fmt::format("'{}': the ranks disagree: rank {} is at {}, rank {} at {}", name,
                                          own_world_rank, describe(mine), world_rank, describe(its)),
                              world_rank);
    }
    if (!expected_elems.empty() && its.sent_elems != expected_elems[static_cast<std::size_t>(from)]) {
      throw DisagreementError(
          fmt::format("'{}': the ranks disagree: rank {} sends {} elements to rank {}, which expects {}", name,
                      world_rank, its.sent_elems, own_world_rank, expected_elems[static_cast<std::size_t>(from)]),
          world_rank);
    }
  }
}

Body MpiCommunicator::watched(const std::string&, Body body) {
  return [this, body = std::move(body)](NativeStream native) {
    body(native);
    const std::lock_guard lock(at_mutex_);
    at_.clear();
  };
}

std::string MpiCommunicator::waits_for() const {
  const std::lock_guard lock(at_mutex_);
  if (at_.empty()) return {};
  std::vector<int> missing;
  for (std::size_t i = 0; i < arrived_.size(); ++i) {
    if (!arrived_[i]) missing.push_back(world_ranks_[i]);
  }
  if (missing.empty()) return fmt::format("'{}' is under way", at_);
  return fmt::format("'{}' waits for rank {}", at_, fmt::join(missing, ", "));
}

void MpiCommunicator::reduce(const std::string& name, const Reduction& reduction) {
  const auto elem_bytes = static_cast<std::int64_t>(size_bytes(reduction.dtype));
  const std::int64_t longest = *std::max_element(reduction.piece_elems.begin(), reduction.piece_elems.end());
  const std::int64_t most_bytes = std::min(kRoundBytes, kStagingBytes / (size_ - 1));
  const std::int64_t round_elems = std::min(longest, most_bytes / elem_bytes);
  if (longest == 0) return;
  const std::int64_t rounds = (longest + round_elems - 1) / round_elems;
  const auto staging_bytes = static_cast<std::size_t>((size_ - 1) * round_elems * elem_bytes);
  for (std::vector<std::byte>& staging : staging_) staging.resize(std::max(staging.size(), staging_bytes));

  // Elements of `rank`'s piece in `round`.
  const auto elems_in = [&](int rank, std::int64_t round) {
    const std::int64_t elems = reduction.piece_elems[static_cast<std::size_t>(rank)] - round * round_elems;
    return std::clamp(elems, std::int64_t{0}, round_elems);
  };
  // That part of the piece in `in`.
  const auto part_of = [&](int rank, std::int64_t round) {
    return reduction.in +
           (reduction.piece_begin_elems[static_cast<std::size_t>(rank)] + round * round_elems) * elem_bytes;
  };
  const auto staged = [&](int rank, std::int64_t round) {
    const int slot = rank < rank_ ? rank : rank - 1;
    return staging_[static_cast<std::size_t>(round % 2)].data() + slot * round_elems * elem_bytes;
  };
  const auto start_raw = [&](std::int64_t round) {
    MpiExchange& exchange = raw_[static_cast<std::size_t>(round % 2)];
    const std::int64_t mine_bytes = elems_in(rank_, round) * elem_bytes;
    for (int distance = 1; distance < size_ && mine_bytes > 0; ++distance) {
      const int from = peer(size_ - distance);
      exchange.receive(staged(from, round), mine_bytes, from, name);
    }
    for (int distance = 1; distance < size_; ++distance) {
      const int to = peer(distance);
      const std::int64_t its_bytes = elems_in(to, round) * elem_bytes;
      if (its_bytes > 0) exchange.send(part_of(to, round), its_bytes, to, name);
    }
  };

  std::vector<const std::byte*> inputs(static_cast<std::size_t>(size_));
  start_raw(0);
  for (std::int64_t round = 0; round < rounds; ++round) {
    if (round + 1 < rounds) start_raw(round + 1);
    // Sends too: the sums of the peers are received where their raw pieces are sent from.
    raw_[static_cast<std::size_t>(round % 2)].wait(name);
    for (int rank = 0; rank < size_; ++rank) {
      inputs[static_cast<std::size_t>(rank)] = rank == rank_ ? part_of(rank, round) : staged(rank, round);
    }
    const std::int64_t mine_elems = elems_in(rank_, round);
    std::byte* sum = reduction.out + round * round_elems * elem_bytes;
    if (mine_elems > 0) sum_in_rank_order(reduction.dtype, inputs, {&sum, 1}, mine_elems);
    if (!reduction.share) continue;

    MpiExchange& exchange = reduced_[static_cast<std::size_t>(round % 2)];
    for (int distance = 1; distance < size_; ++distance) {
      const int from = peer(size_ - distance);
      const std::int64_t its_bytes = elems_in(from, round) * elem_bytes;
      if (its_bytes > 0) exchange.receive(part_of(from, round), its_bytes, from, name);
    }
    for (int distance = 1; distance < size_ && mine_elems > 0; ++distance) {
      exchange.send(sum, mine_elems * elem_bytes, peer(distance), name);
    }
    if (round > 0) reduced_[static_cast<std::size_t>((round - 1) % 2)].wait(name);
  }
  if (reduction.share) reduced_[static_cast<std::size_t>((rounds - 1) % 2)].wait(name);
}

void MpiCommunicator::run_all_reduce(const std::string& name, const Tensor& data) {
  meet(name, {.kind = Note::Kind::kAllReduce,
              .number = 0,
              .dtype = static_cast<std::int64_t>(data.dtype()),
              .elems = data.elems()});
  Reduction reduction{.dtype = data.dtype(),
                      .in = cpu::bytes(data),
                      .out = nullptr,
                      .piece_begin_elems = {},
                      .piece_elems = {},
                      .share = true};
  for (int rank = 0; rank < size_; ++rank) {
    const Piece piece = piece_of(data.elems(), rank, size_);
    reduction.piece_begin_elems.push_back(piece.begin_elems);
    reduction.piece_elems.push_back(piece.elems);
  }
  const auto me = static_cast<std::size_t>(rank_);
  reduction.out = reduction.in + reduction.piece_begin_elems[me] * static_cast<std::int64_t>(size_bytes(data.dtype()));
  reduce(name, reduction);
}

void MpiCommunicator::run_reduce_scatter(const std::string& name, const Tensor& out, const Tensor& in) {
  meet(name, {.kind = Note::Kind::kReduceScatter,
              .number = 0,
              .dtype = static_cast<std::int64_t>(in.dtype()),
              .elems = out.elems()});
  Reduction reduction{.dtype = in.dtype(),
                      .in = cpu::bytes(in),
                      .out = cpu::bytes(out),
                      .piece_begin_elems = {},
                      .piece_elems = {},
                      .share = false};
  for (int rank = 0; rank < size_; ++rank) {
    reduction.piece_begin_elems.push_back(rank * out.elems());
    reduction.piece_elems.push_back(out.elems());
  }
  reduce(name, reduction);
}

void MpiCommunicator::run_all_gather(const std::string& name, const Tensor& out, const Tensor& in) {
  meet(name, {.kind = Note::Kind::kAllGather,
              .number = 0,
              .dtype = static_cast<std::int64_t>(in.dtype()),
              .elems = in.elems()});
  const auto piece_bytes = static_cast<std::int64_t>(in.extent_bytes());
  std::byte* to = cpu::bytes(out);
  MpiExchange& exchange = raw_[0];
  for (int distance = 1; distance < size_; ++distance) {
    const int from = peer(size_ - distance);
    exchange.receive(to + from * piece_bytes, piece_bytes, from, name);
    exchange.send(cpu::bytes(in), piece_bytes, peer(distance), name);
  }
  std::byte* own = to + rank_ * piece_bytes;
  if (own != cpu::bytes(in) && piece_bytes > 0) std::memcpy(own, cpu::bytes(in), static_cast<std::size_t>(piece_bytes));
  exchange.wait(name);
}

void MpiCommunicator::run_broadcast(const std::string& name, const Tensor& data, int root) {
  meet(name, {.kind = Note::Kind::kBroadcast,
              .number = 0,
              .dtype = static_cast<std::int64_t>(data.dtype()),
              .elems = data.elems(),
              .root = root});
  constexpr std::int64_t kPartBytes = std::int64_t{64} << 20;  // MPI counts are ints
  const auto data_bytes = static_cast<std::int64_t>(data.extent_bytes());
  for (std::int64_t begin = 0; begin < data_bytes; begin += kPartBytes) {
    MPI_Request request = MPI_REQUEST_NULL;
    const int part_bytes = static_cast<int>(std::min(kPartBytes, data_bytes - begin));
    check_mpi(MPI_Ibcast(cpu::bytes(data) + begin, part_bytes, MPI_BYTE, root, comm_, &request), "MPI_Ibcast", name);
    await(request, "MPI_Ibcast", name, given_up_);
  }
}

void MpiCommunicator::run_all_to_all(const std::string& name, const Tensor& out,
                                     const std::vector<std::int64_t>& recv_elems, const Tensor& in,
                                     const std::vector<std::int64_t>& send_elems) {
  meet(name, {.kind = Note::Kind::kAllToAll, .number = 0, .dtype = static_cast<std::int64_t>(in.dtype())}, send_elems,
       recv_elems);
  const auto elem_bytes = static_cast<std::int64_t>(size_bytes(in.dtype()));
  std::byte* to = cpu::bytes(out);
  const std::byte* from = cpu::bytes(in);
  const std::byte* own_from = nullptr;
  std::byte* own_to = nullptr;
  MpiExchange& exchange = raw_[0];
  for (int other = 0; other < size_; ++other) {
    const auto index = static_cast<std::size_t>(other);
    if (other == rank_) {
      own_to = to;
      own_from = from;
    } else {
      exchange.receive(to, recv_elems[index] * elem_bytes, other, name);
      exchange.send(from, send_elems[index] * elem_bytes, other, name);
    }
    to += recv_elems[index] * elem_bytes;
    from += send_elems[index] * elem_bytes;
  }
  const std::int64_t own_bytes = send_elems[static_cast<std::size_t>(rank_)] * elem_bytes;
  if (own_bytes > 0) std::memcpy(own_to, own_from, static_cast<std::size_t>(own_bytes));
  exchange.wait(name);
}

void MpiCommunicator::run_barrier(const std::string& name) { meet(name, {.kind = Note::Kind::kBarrier, .number = 0}); }

}  // namespace strake::comm
