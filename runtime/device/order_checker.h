// OrderChecker: is every hazard between streams covered by stream order or by an event?
//
// Vector clocks (stream_clocks.h) over the declared accesses: at launch a read must be ordered after the last write of
// its bytes, a write after the last write and all reads since. Nothing is executed or timed: an unordered pair is
// reported even if the machine happened to run it in order. Bytes are compared by (arena, range), so views that alias
// are seen.
//
// It believes the declarations; ThreadSanitizer is the test that they are complete.
// Threads: the training thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/device/forwarding.h"
#include "runtime/device/stream_clocks.h"

namespace strake {

class OrderChecker {
 public:
  struct Report {
    Hazard hazard;
    bool write_after_write = false;
    std::string operation;  // the later one
    std::string stream;
    std::string earlier_operation;
    std::string earlier_stream;
    std::string arena;
    std::size_t begin_bytes;
    std::size_t end_bytes;
    // "RAW: 'adamw' on stream compute is not ordered after 'bucket 0 all-reduce' on stream comm (arena gradients, bytes
    // 0-4096)"
    std::string describe() const;
  };

  void launch(int stream, const Operation& operation);
  void record(int stream, const EventState& event);
  void wait(int stream, const EventState& event);
  void synchronize_stream(int stream);
  void synchronize_event(const EventState& event);
  void name_stream(int stream, std::string name);

  const std::vector<Report>& reports() const { return reports_; }
  std::int64_t operations_checked() const { return operations_; }

 private:
  struct Access {
    Moment moment = {};      // none yet
    std::uint32_t name = 0;  // index into names_
  };
  struct Cell {  // of the bytes [key, end) of an arena
    std::size_t end_bytes;
    Access last_write;
    std::vector<Access> reads;  // since then, the latest of each stream
  };
  using Cells = std::map<std::size_t, Cell>;

  std::uint32_t name_index(std::string_view name);
  // Splits cells so that [begin, end) is covered exactly, and returns the first.
  static Cells::iterator cover(Cells& cells, std::size_t begin_bytes, std::size_t end_bytes);
  // visit(tensor, cell) for every cell of the tensors' bytes.
  template <typename Visit>
  void for_each_cell(std::span<const Tensor> tensors, Visit visit);
  void report(const Access& earlier, int stream, std::string_view operation, const Tensor& tensor, Hazard hazard,
              bool write_after_write);

  StreamClocks clocks_;
  std::vector<std::string> stream_names_;
  std::unordered_map<const EventState*, Clock> events_;
  std::unordered_map<const Arena*, Cells> arenas_;
  std::unordered_map<std::string, std::uint32_t> name_indices_;
  std::vector<std::string> names_;
  std::vector<Report> reports_;
  std::int64_t operations_ = 0;
};

// A device whose streams tell an OrderChecker what they are asked to do, then do it. With
// Policy::kThrow the first report ends the run as an internal error (DeviceError naming both operations).
class CheckedDevice final : public ForwardingDevice {
 public:
  enum class Policy { kCollect, kThrow };
  CheckedDevice(Device& inner, Policy policy) : ForwardingDevice(inner), policy_(policy) {}

  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override;
  void synchronize(const Event& event) override;
  OrderChecker& checker() { return checker_; }
  void enforce() const;  // throws if the policy says so and there is a report

 private:
  Policy policy_;
  OrderChecker checker_;
};

}  // namespace strake
