#include "comm/staged/staged_communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "comm/same_memory.h"
#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"

namespace strake::comm {
namespace {

// What a rank says of a collective before it.
constexpr std::int64_t kNoteValues = 3;
enum NoteValue : std::size_t { kKind, kElems, kChunks };
enum Kind : std::int64_t { kAllReduce = 1, kReduceScatter, kAllGather, kBroadcast, kAllToAll, kBarrier };

std::string describe(std::span<const std::int64_t> note) {
  constexpr const char* kNames[] = {"?",         "all_reduce", "reduce_scatter", "all_gather",
                                    "broadcast", "all_to_all", "barrier"};
  const std::int64_t kind = note[kKind];
  return fmt::format("{} of {} elements", kNames[kind > 0 && kind <= kBarrier ? kind : 0], note[kElems]);
}

Tensor view(const Tensor& memory, DType dtype, std::int64_t elems) {
  return {memory.arena(), memory.offset_bytes(), dtype, {elems}};
}

// Elements of chunk `chunk` of a range that is cut into chunks of `most`.
std::int64_t elems_in(std::int64_t range_elems, std::int64_t chunk, std::int64_t most) {
  return std::clamp(range_elems - chunk * most, std::int64_t{0}, most);
}

std::int64_t chunks_of(std::int64_t range_elems, std::int64_t most) {
  return std::max(std::int64_t{1}, (range_elems + most - 1) / most);
}

}  // namespace

// Part of the stream's body. If that is destroyed without having run, the ranks must not wait for this one.
struct StagedCommunicator::Attendance {
  StagedCommunicator& communicator;
  std::string name;
  bool attended = false;

  Attendance(StagedCommunicator& of, std::string called) : communicator(of), name(std::move(called)) {}
  Attendance(const Attendance&) = delete;
  Attendance& operator=(const Attendance&) = delete;
  ~Attendance() {
    if (attended) return;
    communicator.fail(
        std::make_exception_ptr(CommError(fmt::format("'{}': the device failed at or before it", name), -1)));
    communicator.host_->interrupt();
  }
};

StagedCommunicator::Staging::Staging(int ranks, std::int64_t chunk_bytes) {
  for (Slot& slot : slots) {
    slot.in = Tensor::reserve(memory, DType::kU8, {chunk_bytes});
    slot.out = Tensor::reserve(memory, DType::kU8, {chunk_bytes});
  }
  said = Tensor::reserve(memory, DType::kI64, {kNoteValues});
  heard = Tensor::reserve(memory, DType::kI64, {ranks * kNoteValues});
}

std::size_t StagedCommunicator::staging_bytes_of(int ranks) { return Staging(ranks, kChunkBytes).memory.size_bytes(); }

StagedCommunicator::StagedCommunicator(std::unique_ptr<Communicator> host, Device& device, std::int64_t chunk_bytes)
    : host_(std::move(host)),
      device_(device),
      chunk_bytes_(chunk_bytes),
      staging_(host_->size(), chunk_bytes),
      host_device_(make_cpu_device()) {
  STRAKE_CHECK(host_->moves_memory_of(DeviceKind::kCpu), "staged collectives need a communicator of host memory");
  STRAKE_CHECK(chunk_bytes >= 8 * host_->size(), "a chunk has room for an element of each rank");
  staging_.memory.allocate(device);
  proxy_ = host_device_->make_stream("staging proxy", StreamPriority::kNormal);
}

StagedCommunicator::~StagedCommunicator() {
  // The streams are done with it. If the proxy is not, something has failed, and its peers may never come.
  if (returned_.load(std::memory_order_relaxed) != next_number_) abort();
}

std::unique_ptr<Communicator> StagedCommunicator::split(int color, int key) {
  std::unique_ptr<Communicator> part = host_->split(color, key);
  if (part == nullptr) return nullptr;
  return std::make_unique<StagedCommunicator>(std::move(part), device_, chunk_bytes_);
}

void StagedCommunicator::fail(std::exception_ptr error) noexcept {
  failure_.raise(std::move(error));
  staging_.flags.release();
}

void StagedCommunicator::abort() noexcept {
  fail(std::make_exception_ptr(CommError("the communicator was aborted", -1)));
  host_->interrupt();
}

std::int64_t StagedCommunicator::chunk_elems(DType dtype, int parts) const {
  return chunk_bytes_ / (parts * static_cast<std::int64_t>(size_bytes(dtype)));
}

Body StagedCommunicator::body_of(Exchange exchange) {
  check();
  const std::int64_t first = next_number_;
  next_number_ += exchange.chunks;
  // shared_ptr: the stream's part, which may be copied, and the proxy's, of which either may be the last to end.
  const auto shared = std::make_shared<const Exchange>(std::move(exchange));
  auto attendance = std::make_shared<Attendance>(*this, shared->name);
  proxy_->launch({.label = {shared->name}, .kind = "exchange", .reads = {}, .writes = {}},
                 [this, shared, first](NativeStream) { run_on_proxy(*shared, first); });
  return [this, shared, first, attendance = std::move(attendance)](NativeStream native) {
    run_on_stream(*shared, first, native);
    attendance->attended = true;
  };
}

// Copies and waits, which a GPU's stream does later than here.
void StagedCommunicator::run_on_stream(const Exchange& exchange, std::int64_t first_number, NativeStream native) {
  const StagingFlags& flags = staging_.flags;
  const auto copy = [&](const Tensor& to, const Tensor& from) {
    if (from.elems() > 0) device_.copy_body(to, from)(native);
  };
  const auto hand_over = [&](std::int64_t chunk) {
    for (const Part& part : exchange.out(chunk)) copy(part.staged, part.on_device);
    flags.hand_over_body(device_, first_number + chunk)(native);
  };
  check();
  hand_over(0);
  for (std::int64_t chunk = 0; chunk < exchange.chunks; ++chunk) {
    if (chunk + 1 < exchange.chunks) hand_over(chunk + 1);  // while this one is exchanged
    flags.take_back_body(device_, first_number + chunk)(native);
    for (const Part& part : exchange.back(chunk)) copy(part.on_device, part.staged);
  }
  check();
}

void StagedCommunicator::run_on_proxy(const Exchange& exchange, std::int64_t first_number) {
  try {
    std::int64_t chunks_of_all = exchange.chunks;
    for (std::int64_t chunk = 0; chunk < exchange.chunks; ++chunk) {
      if (!staging_.flags.await(first_number + chunk)) return;
      if (chunk == 0 && exchange.announced) chunks_of_all = announce(exchange);
      exchange.on_host(chunk)({});
      // What other ranks still send each other: this one sends and receives nothing.
      for (std::int64_t other = chunk + 1; chunk + 1 == exchange.chunks && other < chunks_of_all; ++other) {
        exchange.on_host(other)({});
      }
      returned_.fetch_add(1, std::memory_order_relaxed);
      staging_.flags.give_back(first_number + chunk);
    }
  } catch (...) {
    fail(std::current_exception());
  }
}

std::int64_t StagedCommunicator::announce(const Exchange& exchange) {
  const std::span<std::int64_t> said = host_span<std::int64_t>(staging_.said);
  said[kKind] = exchange.kind;
  said[kElems] = exchange.elems;
  said[kChunks] = exchange.chunks;
  host_->all_gather_body(exchange.name, staging_.heard, staging_.said)({});
  std::int64_t most_chunks = exchange.chunks;
  const std::span<const std::int64_t> heard = host_span<std::int64_t>(staging_.heard);
  for (int peer = 0; peer < size(); ++peer) {
    const auto its = heard.subspan(static_cast<std::size_t>(peer * kNoteValues), kNoteValues);
    if (its[kKind] != said[kKind] || its[kElems] != said[kElems]) {
      throw DisagreementError(fmt::format("'{}': the ranks disagree: rank {} of the group is at {}, rank {} at {}",
                                          exchange.name, rank(), describe(said), peer, describe(its)),
                              -1);
    }
    most_chunks = std::max(most_chunks, its[kChunks]);
  }
  return most_chunks;
}

Body StagedCommunicator::all_reduce_body(const std::string& name, const Tensor& data) {
  const std::int64_t most = chunk_elems(data.dtype());
  const auto parts = [slots = slots(), data, most](std::int64_t chunk) -> std::vector<Part> {
    const Tensor part = data.flat(chunk * most, elems_in(data.elems(), chunk, most));
    return {{part, view(slots(chunk).in, data.dtype(), part.elems())}};
  };
  const std::int64_t chunks = chunks_of(data.elems(), most);
  return body_of({.name = name,
                  .kind = kAllReduce,
                  .elems = data.elems(),
                  .chunks = chunks,
                  .announced = chunks > 1,
                  .out = parts,
                  .back = parts,
                  .on_host = [this, name, parts](std::int64_t chunk) {
                    return host_->all_reduce_body(name, parts(chunk).front().staged);
                  }});
}

Body StagedCommunicator::broadcast_body(const std::string& name, const Tensor& data, int root) {
  const std::int64_t most = chunk_elems(data.dtype());
  const auto parts = [slots = slots(), data, most](std::int64_t chunk) -> std::vector<Part> {
    const Tensor part = data.flat(chunk * most, elems_in(data.elems(), chunk, most));
    return {{part, view(slots(chunk).in, data.dtype(), part.elems())}};
  };
  const auto nothing = [](std::int64_t) { return std::vector<Part>(); };
  const bool sends = rank() == root;
  const std::int64_t chunks = chunks_of(data.elems(), most);
  return body_of({.name = name,
                  .kind = kBroadcast,
                  .elems = data.elems(),
                  .chunks = chunks,
                  .announced = chunks > 1,
                  .out = sends ? decltype(Exchange::out)(parts) : nothing,
                  .back = sends ? decltype(Exchange::back)(nothing) : parts,
                  .on_host = [this, name, parts, root](std::int64_t chunk) {
                    return host_->broadcast_body(name, parts(chunk).front().staged, root);
                  }});
}

// A chunk holds the same elements of every rank's piece.
Body StagedCommunicator::reduce_scatter_body(const std::string& name, const Tensor& out, const Tensor& in) {
  const std::int64_t piece_elems = out.elems(), most = chunk_elems(in.dtype(), size());
  const auto staged_in = [slots = slots(), in, piece_elems, most, ranks = size()](std::int64_t chunk) {
    return view(slots(chunk).in, in.dtype(), ranks * elems_in(piece_elems, chunk, most));
  };
  const auto staged_out = [slots = slots(), out, piece_elems, most](std::int64_t chunk) {
    return view(slots(chunk).out, out.dtype(), elems_in(piece_elems, chunk, most));
  };
  const std::int64_t chunks = chunks_of(piece_elems, most);
  return body_of({.name = name,
                  .kind = kReduceScatter,
                  .elems = piece_elems,
                  .chunks = chunks,
                  .announced = chunks > 1,
                  .out =
                      [staged_in, in, piece_elems, most, ranks = size()](std::int64_t chunk) {
                        const std::int64_t elems = elems_in(piece_elems, chunk, most);
                        std::vector<Part> parts;
                        for (int peer = 0; peer < ranks; ++peer) {
                          parts.push_back({in.flat(peer * piece_elems + chunk * most, elems),
                                           staged_in(chunk).flat(peer * elems, elems)});
                        }
                        return parts;
                      },
                  .back = [staged_out, out, most](std::int64_t chunk) -> std::vector<Part> {
                    const Tensor staged = staged_out(chunk);
                    return {{out.flat(chunk * most, staged.elems()), staged}};
                  },
                  .on_host =
                      [this, name, staged_in, staged_out](std::int64_t chunk) {
                        return host_->reduce_scatter_body(name, staged_out(chunk), staged_in(chunk));
                      }});
}

// As reduce_scatter. This rank's piece is gathered from its place among the others', and not written where it lies
// already: others may read it meanwhile.
Body StagedCommunicator::all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) {
  const std::int64_t piece_elems = in.elems(), most = chunk_elems(in.dtype(), size());
  const auto staged = [slots = slots(), in, piece_elems, most, ranks = size()](std::int64_t chunk) {
    return view(slots(chunk).out, in.dtype(), ranks * elems_in(piece_elems, chunk, most));
  };
  const auto own = [staged, piece_elems, most, me = rank()](std::int64_t chunk) {
    const std::int64_t elems = elems_in(piece_elems, chunk, most);
    return staged(chunk).flat(me * elems, elems);
  };
  const std::int64_t chunks = chunks_of(piece_elems, most);
  const int in_place = same_memory(in, out.flat(rank() * piece_elems, piece_elems)) ? rank() : -1;
  return body_of(
      {.name = name,
       .kind = kAllGather,
       .elems = piece_elems,
       .chunks = chunks,
       .announced = chunks > 1,
       .out = [own, in, most](std::int64_t chunk) -> std::vector<Part> {
         const Tensor piece = own(chunk);
         return {{in.flat(chunk * most, piece.elems()), piece}};
       },
       .back =
           [staged, out, piece_elems, most, in_place, ranks = size()](std::int64_t chunk) {
             const std::int64_t elems = elems_in(piece_elems, chunk, most);
             std::vector<Part> parts;
             for (int peer = 0; peer < ranks; ++peer) {
               if (peer == in_place) continue;
               parts.push_back(
                   {out.flat(peer * piece_elems + chunk * most, elems), staged(chunk).flat(peer * elems, elems)});
             }
             return parts;
           },
       .on_host = [this, name, staged,
                   own](std::int64_t chunk) { return host_->all_gather_body(name, staged(chunk), own(chunk)); }});
}

// A chunk holds at most so many elements for each peer. Ranks may need different numbers of chunks; each takes part in
// as many exchanges as the one that needs most.
Body StagedCommunicator::all_to_all_body(const std::string& name, const Tensor& out,
                                         std::vector<std::int64_t> recv_elems, const Tensor& in,
                                         std::vector<std::int64_t> send_elems) {
  const std::int64_t most = chunk_elems(in.dtype(), size());
  const auto counts = [most](const std::vector<std::int64_t>& elems, std::int64_t chunk) {
    std::vector<std::int64_t> counted;
    for (const std::int64_t all : elems) counted.push_back(elems_in(all, chunk, most));
    return counted;
  };
  // The pieces of `whole`, one behind the other there and in the chunk.
  const auto parts = [counts, most](const Tensor& whole, const Tensor& memory, const std::vector<std::int64_t>& elems,
                                    std::int64_t chunk) {
    std::vector<Part> pieces;
    std::int64_t piece_begin = 0, staged_begin = 0;
    const std::vector<std::int64_t> now = counts(elems, chunk);
    const Tensor staged = view(memory, whole.dtype(), std::accumulate(now.begin(), now.end(), std::int64_t{0}));
    for (std::size_t peer = 0; peer < elems.size(); ++peer) {
      if (now[peer] > 0)
        pieces.push_back({whole.flat(piece_begin + chunk * most, now[peer]), staged.flat(staged_begin, now[peer])});
      piece_begin += elems[peer];
      staged_begin += now[peer];
    }
    return pieces;
  };
  const std::int64_t longest = std::max(std::ranges::max(recv_elems), std::ranges::max(send_elems));
  return body_of(
      {.name = name,
       .kind = kAllToAll,
       .elems = 0,
       .chunks = chunks_of(longest, most),
       .announced = true,
       .out = [slots = slots(), parts, in,
               send_elems](std::int64_t chunk) { return parts(in, slots(chunk).in, send_elems, chunk); },
       .back = [slots = slots(), parts, out,
                recv_elems](std::int64_t chunk) { return parts(out, slots(chunk).out, recv_elems, chunk); },
       .on_host =
           [this, name, slots = slots(), counts, dtype = in.dtype(), recv_elems, send_elems](std::int64_t chunk) {
             std::vector<std::int64_t> received = counts(recv_elems, chunk), sent = counts(send_elems, chunk);
             const auto staged = [&](const Tensor& memory, const std::vector<std::int64_t>& elems) {
               return view(memory, dtype, std::accumulate(elems.begin(), elems.end(), std::int64_t{0}));
             };
             const Tensor to = staged(slots(chunk).out, received), from = staged(slots(chunk).in, sent);
             return host_->all_to_all_body(name, to, std::move(received), from, std::move(sent));
           }});
}

Body StagedCommunicator::barrier_body(const std::string& name) {
  const auto nothing = [](std::int64_t) { return std::vector<Part>(); };
  return body_of({.name = name,
                  .kind = kBarrier,
                  .elems = 0,
                  .chunks = 1,
                  .announced = false,
                  .out = nothing,
                  .back = nothing,
                  .on_host = [this, name](std::int64_t) { return host_->barrier_body(name); }});
}

}  // namespace strake::comm
