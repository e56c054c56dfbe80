// TimedDevice: how long each operation of one stream takes where it runs: in the step, between its neighbours, with its
// operands where the plan has put them and the caches as they are then.
//
// While a run is timed, a mark of the stream follows each operation and is the next one's beginning; where the stream
// waits, or something else is marked, in between, the next operation gets a beginning of its own. Marks take time
// themselves: now and then two follow each other with nothing between, which says how much. Runs end to end repeat the
// same operations; their marks lie in a ring.
//
// `lead_operations`: with it the stream stands still before a run's first operation until so many are enqueued (or the
// run ends), so that no operation's time holds the host's delay in launching it. For devices that cannot tell such
// delays (Device::starved is exact on the CPU). Choose it far below what a stream's queue holds: a host that waits for
// room in the queue would wait for ever.
//
// Threads: the training thread. Errors: none of its own.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/forwarding.h"
#include "runtime/device/host_flag.h"

namespace strake {

// What an operation said of itself.
struct DeclaredOperation {
  struct Operand {
    DType dtype;
    std::vector<std::int64_t> sizes;
    friend bool operator==(const Operand&, const Operand&) = default;
  };

  std::string name;  // of the label
  std::string kind;
  Phase phase = Phase::kOther;
  std::vector<Operand> writes, reads;
  double flops = 0, bytes = 0;
  friend bool operator==(const DeclaredOperation&, const DeclaredOperation&) = default;
};

class TimedDevice final : public ForwardingDevice {
 public:
  // Runs whose times are not yet lost.
  static constexpr int kSlots = 4;

  struct Options {
    std::string stream;       // its name
    int lead_operations = 0;  // 0: none
  };
  TimedDevice(Device& inner, Options options);
  ~TimedDevice() override;

  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override;

  // What the stream is given from now on is run `run`, up to the next begin or end.
  void begin_run(std::int64_t run);
  void end_run();

  struct Times {
    std::vector<Nanoseconds> operations;  // without what starved the stream; marks included
    std::vector<Nanoseconds> empty;       // between marks with nothing between
    Nanoseconds held{0};                  // stood still before the first
  };
  // REQUIRES: the stream has done the run, and fewer than kSlots were begun behind it.
  Times times(std::int64_t run) const;
  // Of that run, in order. Of runs of a static schedule, that is: what has the same name and kind at the same place as
  // in an earlier run is taken for the same.
  const std::vector<DeclaredOperation>& operations(std::int64_t run) const;

 private:
  class TimedStream;
  struct Interval {
    std::size_t begin, end;  // marks
  };
  struct Slot {
    std::int64_t run = -1;
    std::deque<Mark> marks;  // grows in the first runs only
    std::size_t used = 0;
    std::vector<DeclaredOperation> declared;  // and of the run before, until it is told otherwise
    std::vector<Interval> operations, empty;
    std::size_t held = 0;  // marks 0 and 1 stand around it
    std::unique_ptr<HostFlag> released;
  };
  const Slot& slot_of(std::int64_t run) const;

  const Options options_;
  Arena flags_{"flags of timed runs", MemoryKind::kHost};
  std::array<Slot, kSlots> slots_;
  Slot* current_ = nullptr;  // being enqueued
};

}  // namespace strake
