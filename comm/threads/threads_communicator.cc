#include "comm/threads/threads_communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <numeric>
#include <string_view>
#include <tuple>

#include "comm/rank_order_sum.h"
#include "runtime/device/cpu/cpu_memory.h"

namespace strake::comm {
namespace {

std::int64_t bytes_of(std::int64_t elems, DType dtype) { return elems * static_cast<std::int64_t>(size_bytes(dtype)); }

void copy_elems(std::byte* to, const std::byte* from, std::int64_t elems, DType dtype) {
  if (to != from && elems > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes_of(elems, dtype)));
}

std::int64_t elems_before(const std::vector<std::int64_t>& elems, int rank) {
  return std::accumulate(elems.begin(), elems.begin() + rank, std::int64_t{0});
}

// Empty if the ranks are at the same collective. Every rank compares all notes, so that all see the same.
std::string disagreement(const std::vector<CollectiveNote>& notes, const std::vector<int>& world_ranks) {
  const CollectiveNote& first = notes.front();
  for (std::size_t peer = 0; peer < notes.size(); ++peer) {
    const CollectiveNote& note = notes[peer];
    if (std::string_view(note.kind) != first.kind || note.elems != first.elems || note.dtype != first.dtype ||
        note.root != first.root) {
      return fmt::format("rank {} calls {} of {} {} (root {}), rank {} calls {} of {} {} (root {})", world_ranks[0],
                         first.kind, first.elems, name_of(first.dtype), first.root, world_ranks[peer], note.kind,
                         note.elems, name_of(note.dtype), note.root);
    }
    if (note.send_elems == nullptr) continue;
    for (std::size_t other = 0; other < notes.size(); ++other) {
      const std::int64_t sent = (*note.send_elems)[other];
      const std::int64_t expected = (*notes[other].recv_elems)[peer];
      if (sent != expected) {
        return fmt::format("rank {} sends {} elements to rank {}, which expects {}", world_ranks[peer], sent,
                           world_ranks[other], expected);
      }
    }
  }
  return {};
}

// Part of the body of an enqueued collective. If the body is destroyed without having succeeded, this rank
// will never be where its peers wait for it.
class Attendance {
 public:
  Attendance(ThreadsWorld& world, int world_rank, std::string name)
      : world_(world), world_rank_(world_rank), name_(std::move(name)) {}
  Attendance(const Attendance&) = delete;
  Attendance& operator=(const Attendance&) = delete;
  ~Attendance() {
    if (!attended_) world_.fail(world_rank_, fmt::format("its device failed at or before '{}'", name_));
  }
  void attended() { attended_ = true; }

 private:
  ThreadsWorld& world_;
  const int world_rank_;
  const std::string name_;
  bool attended_ = false;
};

}  // namespace

Body ThreadsCommunicator::watched(const std::string& name, Body body) {
  // shared_ptr: a Body is copyable, and what counts is the end of its last copy.
  auto attendance = std::make_shared<Attendance>(world_, group_.world_ranks()[static_cast<std::size_t>(rank_)], name);
  return [attendance = std::move(attendance), body = std::move(body)](NativeStream native) {
    body(native);
    attendance->attended();
  };
}

void ThreadsCommunicator::meet(const std::string& name, const CollectiveNote& mine,
                               const std::function<void(const Notes&)>& part) {
  Board<CollectiveNote>& board = group_.collectives();
  board.post(rank_, mine, name);
  const Notes& notes = board.collect(rank_, name);
  const std::string trouble = disagreement(notes, group_.world_ranks());
  if (trouble.empty()) part(notes);
  // Neither waits, so every rank gets here. Whatever fails meanwhile, nobody may leave while a peer may
  // still be at its buffers or at what its note points to.
  board.post(rank_, CollectiveNote{}, name, OnFailure::kFinish);
  board.collect(rank_, name, OnFailure::kFinish);
  if (!trouble.empty()) throw DisagreementError(fmt::format("'{}': the ranks disagree: {}", name, trouble));
}

void ThreadsCommunicator::run_all_reduce(const std::string& name, const Tensor& data) {
  const DType dtype = data.dtype();
  const CollectiveNote mine{
      .kind = "all_reduce", .dtype = dtype, .elems = data.elems(), .in = cpu::bytes(data), .out = cpu::bytes(data)};
  meet(name, mine, [&](const Notes& notes) {
    // Nobody but this rank touches its piece, of any buffer.
    const Piece piece = piece_of(mine.elems, rank_, size());
    std::vector<const std::byte*> inputs;
    std::vector<std::byte*> outputs;
    for (const CollectiveNote& note : notes) {
      inputs.push_back(note.in + bytes_of(piece.begin_elems, dtype));
      outputs.push_back(note.out + bytes_of(piece.begin_elems, dtype));
    }
    sum_in_rank_order(dtype, inputs, outputs, piece.elems);
  });
}

void ThreadsCommunicator::run_reduce_scatter(const std::string& name, const Tensor& out, const Tensor& in) {
  const DType dtype = in.dtype();
  const CollectiveNote mine{
      .kind = "reduce_scatter", .dtype = dtype, .elems = out.elems(), .in = cpu::bytes(in), .out = cpu::bytes(out)};
  meet(name, mine, [&](const Notes& notes) {
    std::vector<const std::byte*> inputs;
    for (const CollectiveNote& note : notes) inputs.push_back(note.in + bytes_of(rank_ * mine.elems, dtype));
    sum_in_rank_order(dtype, inputs, {&mine.out, 1}, mine.elems);
  });
}

void ThreadsCommunicator::run_all_gather(const std::string& name, const Tensor& out, const Tensor& in) {
  const DType dtype = in.dtype();
  const CollectiveNote mine{
      .kind = "all_gather", .dtype = dtype, .elems = in.elems(), .in = cpu::bytes(in), .out = cpu::bytes(out)};
  meet(name, mine, [&](const Notes& notes) {
    for (int peer = 0; peer < size(); ++peer) {
      copy_elems(mine.out + bytes_of(peer * mine.elems, dtype), notes[static_cast<std::size_t>(peer)].in, mine.elems,
                 dtype);
    }
  });
}

void ThreadsCommunicator::run_broadcast(const std::string& name, const Tensor& data, int root) {
  const CollectiveNote mine{.kind = "broadcast",
                            .dtype = data.dtype(),
                            .elems = data.elems(),
                            .root = root,
                            .in = cpu::bytes(data),
                            .out = cpu::bytes(data)};
  meet(name, mine, [&](const Notes& notes) {
    copy_elems(mine.out, notes[static_cast<std::size_t>(root)].in, mine.elems, mine.dtype);
  });
}

void ThreadsCommunicator::run_all_to_all(const std::string& name, const Tensor& out,
                                         const std::vector<std::int64_t>& recv_elems, const Tensor& in,
                                         const std::vector<std::int64_t>& send_elems) {
  const DType dtype = in.dtype();
  const CollectiveNote mine{.kind = "all_to_all",
                            .dtype = dtype,
                            .in = cpu::bytes(in),
                            .out = cpu::bytes(out),
                            .recv_elems = &recv_elems,
                            .send_elems = &send_elems};
  meet(name, mine, [&](const Notes& notes) {
    std::byte* to = mine.out;
    for (std::size_t peer = 0; peer < notes.size(); ++peer) {
      const std::byte* from = notes[peer].in + bytes_of(elems_before(*notes[peer].send_elems, rank_), dtype);
      copy_elems(to, from, recv_elems[peer], dtype);
      to += bytes_of(recv_elems[peer], dtype);
    }
  });
}

void ThreadsCommunicator::run_barrier(const std::string& name) {
  meet(name, {.kind = "barrier"}, [](const Notes&) {});
}

void ThreadsCommunicator::interrupt() noexcept {
  world_.fail(group_.world_ranks()[static_cast<std::size_t>(rank_)], "it has given up its communicator");
}

std::unique_ptr<Communicator> ThreadsCommunicator::split(int color, int key) {
  const int number = splits_++;
  const std::string name = fmt::format("{}, split {}", group_.name(), number);
  group_.blocking().post(rank_, {"split", fmt::format("{} {}", color, key)}, name);
  std::vector<std::tuple<int, int>> members;  // (key, group rank) of this color
  const std::vector<CallNote>& answers = group_.blocking().collect(rank_, name);
  for (std::size_t peer = 0; peer < answers.size(); ++peer) {
    const std::string& answer = answers[peer].text;
    const char* end = answer.data() + answer.size();
    int its_color = 0;
    int its_key = 0;
    const char* space = std::from_chars(answer.data(), end, its_color).ptr;
    std::from_chars(space + 1, end, its_key);
    if (its_color == color) members.emplace_back(its_key, static_cast<int>(peer));
  }
  if (color < 0) return nullptr;
  std::ranges::sort(members);
  std::vector<int> world_ranks;
  int new_rank = 0;
  for (const auto& [its_key, peer] : members) {
    if (peer == rank_) new_rank = static_cast<int>(world_ranks.size());
    world_ranks.push_back(group_.world_ranks()[static_cast<std::size_t>(peer)]);
  }
  ThreadsGroup& group = world_.group(fmt::format("{}, color {}", name, color), world_ranks);
  return std::make_unique<ThreadsCommunicator>(world_, group, new_rank);
}

}  // namespace strake::comm
