// StepAccount: where the wall time of each step went on this rank, from marks read late.
//
// The trainer marks the boundaries of what it enqueues on the compute stream; the time between two neighbouring marks
// belongs to one class. A step runs from its first mark to the first mark
// of the next step, so the classes partition it: none is a remainder. Time in which the stream stood idle for want
// of enqueued work is moved to host_gap wherever the backend can tell (Device::starved), except in classes that
// are themselves the host waiting (data wait, checkpoint, other).
//
// Two marks back to back around a wait (compute.wait between them) measure that wait: exposed communication and
// exposed H2D are such pairs. Nothing here synchronises: a step is read once its marks are complete, from a
// ring of kSlots steps.
// Threads: the training thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/device/device.h"
#include "runtime/telemetry/step_class.h"

namespace strake::launch {

struct StepTimes {
  std::int64_t step = 0;
  Nanoseconds wall{0};
  std::array<Nanoseconds, kStepClasses> classes{};
  Nanoseconds of(StepClass step_class) const { return classes[static_cast<std::size_t>(step_class)]; }
  Nanoseconds unexplained() const;  // wall minus the sum of the classes
};

class StepAccount {
 public:
  static constexpr int kSlots = 4;

  // At most `marks_per_step` marks in a step, the first included.
  StepAccount(Device& device, Stream& compute, int marks_per_step);

  // First mark of step `step`, and the end of the step before. The time since that step's last mark was
  // spent on the host: host_gap. REQUIRES: the slot of `step` was read (read() of step - kSlots) or abandoned.
  void begin(std::int64_t step);
  // The time since the previous mark belongs to `step_class`.
  void mark(StepClass step_class);
  // Ends the last step.
  void end();

  // Has step `step` ended on the device? REQUIRES: begun, at most kSlots - 2 steps ago, and ended by begin or end.
  bool complete(std::int64_t step) const;
  // Times of a complete step.
  StepTimes read(std::int64_t step) const;
  // Where a point (a mark on any stream) lies in step `step`, from its first mark.
  Nanoseconds since_begin(std::int64_t step, const Mark& mark) const;
  // From the step's first mark to the first mark that closed a kBackward interval's begin, and to its end: the span of
  // backward in the last micro-batch.
  struct Span {
    Nanoseconds begin, end;
  };
  Span last(std::int64_t step, StepClass step_class) const;

 private:
  struct Slot {
    std::vector<Mark> marks;
    std::vector<StepClass> classes;  // of the interval that ends at marks[i]
    std::size_t used = 0;            // marks of this step
    std::int64_t step = -1;
  };
  const Slot& slot_of(std::int64_t step) const;
  const Mark& end_of(std::int64_t step) const;

  Device& device_;
  Stream& compute_;
  std::array<Slot, kSlots> slots_;
  Mark last_end_;              // when there is no next step
  std::int64_t current_ = -1;  // step being marked
  std::int64_t ended_ = -1;    // step closed by end()
};

}  // namespace strake::launch
