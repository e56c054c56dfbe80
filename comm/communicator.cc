#include "comm/communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "comm/rank_order_sum.h"
#include "comm/same_memory.h"

namespace strake::comm {
namespace {

Body nothing() {
  return [](NativeStream) {};
}

bool overlap(const Tensor& a, const Tensor& b) {
  return &a.arena() == &b.arena() && a.offset_bytes() < b.offset_bytes() + b.extent_bytes() &&
         b.offset_bytes() < a.offset_bytes() + a.extent_bytes();
}

// The piece may be `whole`'s piece of this rank, or lie elsewhere.
void check_piece(Label label, const Tensor& whole, const Tensor& piece, int rank, int size) {
  STRAKE_CHECK(
      whole.contiguous() && piece.contiguous() && whole.dtype() == piece.dtype() &&
          whole.elems() == size * piece.elems(),
      fmt::format("'{}': {} and {} do not fit {} ranks", label.name, whole.describe(), piece.describe(), size));
  STRAKE_CHECK(!overlap(whole, piece) || same_memory(piece, whole.flat(rank * piece.elems(), piece.elems())),
               fmt::format("'{}': the buffers overlap other than in this rank's own piece", label.name));
}

void check_reducible(Label label, const Tensor& data) {
  STRAKE_CHECK(data.contiguous() && reducible(data.dtype()),
               fmt::format("'{}': cannot reduce {}", label.name, data.describe()));
}

Body copy_of(Stream& stream, const Tensor& dst, const Tensor& src) {
  return src.elems() == 0 || same_memory(dst, src) ? nothing() : stream.device().copy_body(dst, src);
}

}  // namespace

void Communicator::launch(Stream& stream, const Operation& operation, Body body) {
  stream.launch(operation, std::move(body));
}

template <typename Alone, typename Together>
void Communicator::enqueue(Stream& stream, const Operation& operation, Alone alone, Together together) {
  const DeviceKind kind = stream.device().kind();
  if (size() == 1) return launch(stream, operation, alone());
  if (kind == DeviceKind::kPlan) return launch(stream, operation, nothing());
  STRAKE_CHECK(moves_memory_of(kind), fmt::format("'{}': backend '{}' does not move the memory of {}",
                                                  operation.label.name, backend(), stream.device().description()));
  launch(stream, operation, together(std::string(operation.label.name)));
}

void Communicator::all_reduce(Stream& stream, Label label, const Tensor& data) {
  check_reducible(label, data);
  const double others = size() - 1;
  const double data_bytes = static_cast<double>(data.extent_bytes());
  enqueue(stream,
          {.label = label,
           .kind = "all_reduce",
           .reads = {&data, 1},
           .writes = {&data, 1},
           .flops = others / size() * static_cast<double>(data.elems()),
           .bytes = 2 * others / size() * data_bytes},
          nothing, [&](const std::string& name) { return all_reduce_body(name, data); });
}

void Communicator::reduce_scatter(Stream& stream, Label label, const Tensor& out, const Tensor& in) {
  check_reducible(label, in);
  check_piece(label, in, out, rank(), size());
  enqueue(
      stream,
      {.label = label,
       .kind = "reduce_scatter",
       .reads = {&in, 1},
       .writes = {&out, 1},
       .flops = static_cast<double>(size() - 1) * static_cast<double>(out.elems()),
       .bytes = static_cast<double>(size() - 1) * static_cast<double>(out.extent_bytes())},
      [&] { return copy_of(stream, out, in); },
      [&](const std::string& name) { return reduce_scatter_body(name, out, in); });
}

void Communicator::all_gather(Stream& stream, Label label, const Tensor& out, const Tensor& in) {
  check_piece(label, out, in, rank(), size());
  // A piece that lies in its place already is read alone: others may read it meanwhile.
  std::vector<Tensor> written{out};
  if (same_memory(in, out.flat(rank() * in.elems(), in.elems()))) {
    const std::int64_t end = (rank() + 1) * in.elems();
    written.clear();
    if (rank() > 0) written.push_back(out.flat(0, rank() * in.elems()));
    if (end < out.elems()) written.push_back(out.flat(end, out.elems() - end));
  }
  enqueue(
      stream,
      {.label = label,
       .kind = "all_gather",
       .reads = {&in, 1},
       .writes = written,
       .bytes = static_cast<double>(size() - 1) * static_cast<double>(in.extent_bytes())},
      [&] { return copy_of(stream, out, in); },
      [&](const std::string& name) { return all_gather_body(name, out, in); });
}

void Communicator::broadcast(Stream& stream, Label label, const Tensor& data, int root) {
  STRAKE_CHECK(data.contiguous(), fmt::format("'{}': cannot broadcast {}", label.name, data.describe()));
  STRAKE_CHECK(root >= 0 && root < size(), fmt::format("'{}': no rank {} in a group of {}", label.name, root, size()));
  const std::span<const Tensor> touched(&data, 1);
  const bool sends = rank() == root;
  enqueue(stream,
          {.label = label,
           .kind = "broadcast",
           .reads = sends ? touched : std::span<const Tensor>(),
           .writes = sends ? std::span<const Tensor>() : touched,
           .bytes = static_cast<double>(data.extent_bytes())},
          nothing, [&](const std::string& name) { return broadcast_body(name, data, root); });
}

void Communicator::all_to_all(Stream& stream, Label label, const Tensor& out, std::span<const std::int64_t> recv_elems,
                              const Tensor& in, std::span<const std::int64_t> send_elems) {
  const auto fits = [&](const Tensor& tensor, std::span<const std::int64_t> elems) {
    return tensor.contiguous() && static_cast<int>(elems.size()) == size() && std::ranges::min(elems) >= 0 &&
           std::accumulate(elems.begin(), elems.end(), std::int64_t{0}) <= tensor.elems();
  };
  STRAKE_CHECK(fits(out, recv_elems) && fits(in, send_elems) && out.dtype() == in.dtype() && !overlap(out, in),
               fmt::format("'{}': {} and {} do not hold what is sent and received, or overlap", label.name,
                           in.describe(), out.describe()));
  const auto me = static_cast<std::size_t>(rank());
  STRAKE_CHECK(recv_elems[me] == send_elems[me],
               fmt::format("'{}': rank {} sends {} elements to itself and receives {}", label.name, rank(),
                           send_elems[me], recv_elems[me]));
  double sent_elems = 0;
  for (std::size_t peer = 0; peer < send_elems.size(); ++peer) {
    if (peer != me) sent_elems += static_cast<double>(send_elems[peer]);
  }
  enqueue(
      stream,
      {.label = label,
       .kind = "all_to_all",
       .reads = {&in, 1},
       .writes = {&out, 1},
       .bytes = sent_elems * static_cast<double>(size_bytes(in.dtype()))},
      [&] { return copy_of(stream, out.flat(0, recv_elems[me]), in.flat(0, send_elems[me])); },
      [&](const std::string& name) {
        return all_to_all_body(name, out, {recv_elems.begin(), recv_elems.end()}, in,
                               {send_elems.begin(), send_elems.end()});
      });
}

void Communicator::barrier(Stream& stream, Label label) {
  enqueue(stream, {.label = label, .kind = "barrier", .reads = {}, .writes = {}}, nothing,
          [&](const std::string& name) { return barrier_body(name); });
}

}  // namespace strake::comm
