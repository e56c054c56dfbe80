// StagedCommunicator: collectives of memory that the host cannot read, carried by a communicator of host memory. For
// ranks that share a GPU, which NCCL refuses; slow: every byte goes through page-locked host memory twice.
//
// A collective is cut into chunks. In the order of its stream each is copied into staging memory, handed to a proxy
// thread, and copied back when that has exchanged it with the other ranks' by the host communicator's own collective; a
// chunk is copied while the one before is exchanged. So sums are those of the host communicators, bit for bit, whatever
// the chunks (docs/determinism.md). The stream waits for a word in host memory (staging_flags.h): the training thread
// never waits, and no other stream is held up. The proxy calls nothing of the device.
//
// Ranks tell each other what they do before a collective of several chunks, and before every all-to-all, whose number
// of chunks depends on what other ranks send each other.
//
// Memory: four parts of a chunk (staging_bytes), taken when it is made. Works on the CPU device too, which is how it is
// tested; there it is of no use.
// Ordering, threads: as Communicator.
// Errors: what the host communicator throws. The device cannot be poisoned from outside, so check() throws it, and so
// does every later call; the stream goes on at once, with whatever has arrived. On the CPU device it poisons as well.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/staged/staging_flags.h"
#include "runtime/base/sticky_error.h"

namespace strake::comm {

class StagedCommunicator final : public Communicator {
 public:
  static constexpr std::int64_t kChunkBytes = std::int64_t{8} << 20;

  // Of the ranks of `host`, a communicator of host memory, which is used from no other thread from now on. `device`:
  // whose memory is moved, and of whose host memory the staging is; outlives this.
  // REQUIRES: equal `chunk_bytes` on all ranks, at least 8 for each rank.
  StagedCommunicator(std::unique_ptr<Communicator> host, Device& device, std::int64_t chunk_bytes = kChunkBytes);
  ~StagedCommunicator() override;

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  std::string backend() const override { return "staged"; }
  std::size_t staging_bytes() const override { return staging_.memory.size_bytes(); }
  // What a rank would take, of a group of so many.
  static std::size_t staging_bytes_of(int ranks);
  std::string waits_for() const override { return host_->waits_for(); }
  std::unique_ptr<Communicator> split(int color, int key) override;
  void check() override { failure_.rethrow_if_raised(); }
  void abort() noexcept override;

 private:
  // Of device memory, and its place in staging memory.
  struct Part {
    Tensor on_device, staged;
  };
  // One collective. Chunks count from 0.
  struct Exchange {
    std::string name;
    std::int64_t kind;   // the same on all ranks, as `elems`
    std::int64_t elems;  // 0: they may differ
    std::int64_t chunks;
    bool announced;  // ranks tell each other of it first
    std::function<std::vector<Part>(std::int64_t chunk)> out, back;
    std::function<Body(std::int64_t chunk)> on_host;
  };
  // A chunk's place in staging memory.
  struct Slot {
    Tensor in, out;  // u8 [chunk_bytes]
  };
  struct Staging {
    Staging(int ranks, std::int64_t chunk_bytes);

    Arena memory{"staged communication", MemoryKind::kHost};
    std::array<Slot, 2> slots;  // of chunks in turn
    Tensor said, heard;         // i64: what a rank says before a collective, and what all say
    StagingFlags flags{memory};
  };
  struct Attendance;

  bool moves_memory_of(DeviceKind kind) const override { return kind == device_.kind(); }
  Body all_reduce_body(const std::string& name, const Tensor& data) override;
  Body reduce_scatter_body(const std::string& name, const Tensor& out, const Tensor& in) override;
  Body all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) override;
  Body broadcast_body(const std::string& name, const Tensor& data, int root) override;
  Body all_to_all_body(const std::string& name, const Tensor& out, std::vector<std::int64_t> recv_elems,
                       const Tensor& in, std::vector<std::int64_t> send_elems) override;
  Body barrier_body(const std::string& name) override;
  void interrupt() noexcept override { abort(); }

  // Enqueues the proxy's part; the stream's part.
  Body body_of(Exchange exchange);
  void run_on_stream(const Exchange& exchange, std::int64_t first_number, NativeStream native);
  void run_on_proxy(const Exchange& exchange, std::int64_t first_number);
  // Throws DisagreementError if the ranks are not at the same collective; the most chunks of any rank.
  std::int64_t announce(const Exchange& exchange);
  // For good, for the first reason given.
  void fail(std::exception_ptr error) noexcept;

  // Elements of a chunk where `parts` of it, of equal size, share its memory.
  std::int64_t chunk_elems(DType dtype, int parts = 1) const;
  // Of a chunk of the collective that is enqueued next.
  std::function<const Slot&(std::int64_t chunk)> slots() const {
    return [this, first = next_number_](std::int64_t chunk) -> const Slot& {
      return staging_.slots[static_cast<std::size_t>((first + chunk) % 2)];
    };
  }

  std::unique_ptr<Communicator> host_;
  Device& device_;
  const std::int64_t chunk_bytes_;
  Staging staging_;
  StickyError failure_;
  std::int64_t next_number_ = 0;           // of the chunk that is enqueued next
  std::atomic<std::int64_t> returned_{0};  // chunks that the proxy is done with
  std::unique_ptr<Device> host_device_;    // the proxy is a stream of it
  std::unique_ptr<Stream> proxy_;          // last: it uses everything above
};

}  // namespace strake::comm
