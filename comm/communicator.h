// Communicator: collectives between ranks, enqueued on a stream of the rank's device.
//
// Reduction order is part of the contract: every reduced element is ((x0 + x1) + x2) + ... in group rank
// order 0..N-1, whatever range it is reduced in and whatever else is in flight. f32 and f64 are added in
// their own type; bf16 is added in f32 and rounded once. So overlap, bucket sizes and delays change no bit.
// The exception is NCCL with more than two ranks, which promises less: every rank gets the same bits, but which ranks
// are added first depends on the algorithm that it takes for the size, and a sum in bf16 is rounded at every addition.
//
// Ordering: a collective is an operation of `stream`: it starts when it reaches the head of the stream
// and is complete when the stream moves on. Buffers must not be touched from another stream in between.
// Every rank of the group enqueues the same collectives with the same sizes in the same order. One
// communicator is used from one stream only, and outlives what is enqueued on it. On a plan device
// (DeviceKind::kPlan) nothing is exchanged.
// Tensors are contiguous; views of the same memory are allowed only where a call says so.
// What a collective checks and declares (kind, reads and writes, FLOPs and bytes that this rank adds and sends) is said
// here once for every backend, so a dry run plans for any of them; a backend says only how bytes travel, in *_body.
// A group of one moves nothing: its collectives are copies of the device or nothing at all, enqueued all the same, so
// that the schedule looks alike; it works on every device, whatever the backend.
// Threads: the training thread enqueues. Errors: a failed collective poisons the device with CommError
// naming the peer by its rank in the world; the caller aborts the job (other ranks may be blocked).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/device/device.h"

namespace strake::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;  // in this group, 0..size()-1
  virtual int size() const = 0;
  virtual std::string backend() const = 0;  // "threads", "mpi", "nccl", "staged"
  // Of host memory that the communicator keeps so that the device can copy to and from it: for the memory table.
  virtual std::size_t staging_bytes() const { return 0; }

  // Collectives enqueued from now on will use the whole of `arena`, which is allocated: some backends move memory
  // faster that they know. Collective: every rank of the group says it of equal arenas in one order. It only ever
  // changes how fast they are. Before the arena goes, and while nothing of it is in flight, it is forgotten;
  // `RegisteredMemory` (comm/registered_memory.h) does both. Not said of a communicator's parts.
  virtual void register_memory(const Arena&) {}
  virtual void forget_memory(const Arena&) noexcept {}

  // data = sum over ranks, in place. data: f32, f64 or bf16.
  void all_reduce(Stream& stream, Label label, const Tensor& data);
  // out = this rank's piece of the sum. in [size() * n], out [n]; out may be in's own piece.
  void reduce_scatter(Stream& stream, Label label, const Tensor& out, const Tensor& in);
  // out = the ranks' pieces one behind the other. in [n], out [size() * n]; in may be out's own piece. Any dtype.
  void all_gather(Stream& stream, Label label, const Tensor& out, const Tensor& in);
  // data on every rank = data of `root`. Any dtype.
  void broadcast(Stream& stream, Label label, const Tensor& data, int root);
  // Rank r receives send_elems[r] elements of `in`, taken in rank order, and this rank receives recv_elems[r]
  // from rank r, laid down in rank order in `out`. The element numbers are host data of this call, copied,
  // and agree pairwise; they may be zero, and may leave the end of `in` and `out` unused. Any dtype.
  void all_to_all(Stream& stream, Label label, const Tensor& out, std::span<const std::int64_t> recv_elems,
                  const Tensor& in, std::span<const std::int64_t> send_elems);
  // Completes on the stream when every rank has reached it.
  void barrier(Stream& stream, Label label);

  // What is at hand and which ranks it waits for, for people ("'bucket 3' waits for rank 1"); empty: nothing, or not
  // known. Any thread; for when something hangs, not for the step path.
  virtual std::string waits_for() const { return {}; }

  // A communicator of the ranks that give the same `color`, ordered by (key, rank). Collective over this
  // group; called by the training thread while none of its collectives is in flight. Null for color < 0.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  // Throws CommError with the library's words if a collective failed where no call could report it, or if abort() was
  // called. Cheap, waits for nothing. Backends whose collectives run on the device's workers poison it instead.
  // Any thread.
  virtual void check() {}
  // The last resort, from any thread while the communicator lives: collectives in flight end with whatever has arrived,
  // so that who waits for them goes on, and every later call throws CommError. Of this group only, not of those that
  // were split from it. May take seconds where a device does not answer. (Of NCCL's collectives between symmetric
  // buffers nothing can end those in flight.)
  virtual void abort() noexcept {}

 protected:
  // Whose memory the backend moves, in groups of two ranks and more.
  virtual bool moves_memory_of(DeviceKind kind) const = 0;
  // This rank's part of a collective of two ranks and more, asked for as it is enqueued, its arguments checked. `name`:
  // the label, for messages.
  virtual Body all_reduce_body(const std::string& name, const Tensor& data) = 0;
  virtual Body reduce_scatter_body(const std::string& name, const Tensor& out, const Tensor& in) = 0;
  virtual Body all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) = 0;
  virtual Body broadcast_body(const std::string& name, const Tensor& data, int root) = 0;
  virtual Body all_to_all_body(const std::string& name, const Tensor& out, std::vector<std::int64_t> recv_elems,
                               const Tensor& in, std::vector<std::int64_t> send_elems) = 0;
  virtual Body barrier_body(const std::string& name) = 0;

  // For who runs bodies on a thread of its own (staged/): the one that runs ends with CommError, and so does every
  // later one, since this rank gives up; peers that wait for it learn it where the backend can tell them. Any thread.
  virtual void interrupt() noexcept {}

  // Puts a collective on the stream: where wrappers add to it.
  virtual void launch(Stream& stream, const Operation& operation, Body body);

 private:
  friend class ForwardingCommunicator;  // asks the communicator inside for its bodies
  friend class StagedCommunicator;      // likewise

  // `alone` and `together` give the body in a group of one and of more; only the one that is needed is called.
  template <typename Alone, typename Together>
  void enqueue(Stream& stream, const Operation& operation, Alone alone, Together together);
};

}  // namespace strake::comm
