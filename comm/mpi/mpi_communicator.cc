#include "comm/mpi/mpi_communicator.h"

#include <algorithm>
#include <cstring>

#include "comm/mpi/mpi_call.h"
#include "comm/rank_order_sum.h"
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

void await(MPI_Request request, std::string_view call, const std::string& what) {
  int result = MPI_SUCCESS;
  poll_until([&] {
    int complete = 0;
    result = MPI_Test(&request, &complete, MPI_STATUS_IGNORE);
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
      raw_{{{comm, world_ranks_}, {comm, world_ranks_}}},
      reduced_{{{comm, world_ranks_}, {comm, world_ranks_}}} {}

MpiCommunicator::~MpiCommunicator() { log_mpi(MPI_Comm_free(&comm_), "MPI_Comm_free"); }

std::unique_ptr<Communicator> MpiCommunicator::split(int color, int key) {
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm_, color < 0 ? MPI_UNDEFINED : color, key, &part), "MPI_Comm_split", "split");
  if (part == MPI_COMM_NULL) return nullptr;
  check_mpi(MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", "split");
  return std::make_unique<MpiCommunicator>(part);
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
  constexpr std::int64_t kPartBytes = std::int64_t{64} << 20;  // MPI counts are ints
  const auto data_bytes = static_cast<std::int64_t>(data.extent_bytes());
  for (std::int64_t begin = 0; begin < data_bytes; begin += kPartBytes) {
    MPI_Request request = MPI_REQUEST_NULL;
    const int part_bytes = static_cast<int>(std::min(kPartBytes, data_bytes - begin));
    check_mpi(MPI_Ibcast(cpu::bytes(data) + begin, part_bytes, MPI_BYTE, root, comm_, &request), "MPI_Ibcast", name);
    await(request, "MPI_Ibcast", name);
  }
}

void MpiCommunicator::run_all_to_all(const std::string& name, const Tensor& out,
                                     const std::vector<std::int64_t>& recv_elems, const Tensor& in,
                                     const std::vector<std::int64_t>& send_elems) {
  const auto elem_bytes = static_cast<std::int64_t>(size_bytes(in.dtype()));
  std::byte* to = cpu::bytes(out);
  const std::byte* from = cpu::bytes(in);
  const std::byte* own_from = nullptr;
  std::byte* own_to = nullptr;
  MpiExchange& exchange = raw_[0];
  // Also messages of no elements: ranks that disagree on them get an error instead of a hang.
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

void MpiCommunicator::run_barrier(const std::string& name) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(comm_, &request), "MPI_Ibarrier", name);
  await(request, "MPI_Ibarrier", name);
}

}  // namespace strake::comm
