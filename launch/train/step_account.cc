#include "launch/train/step_account.h"

#include <fmt/format.h>

#include <algorithm>

namespace strake::launch {

Nanoseconds StepTimes::unexplained() const {
  Nanoseconds sum{0};
  for (const Nanoseconds part : classes) sum += part;
  return wall - sum;
}

StepAccount::StepAccount(Device& device, Stream& compute, int marks_per_step)
    : device_(device), compute_(compute), last_end_(device.make_mark("last step's end")) {
  for (int slot = 0; slot < kSlots; ++slot) {
    Slot& created = slots_[static_cast<std::size_t>(slot)];
    for (int i = 0; i < marks_per_step; ++i) {
      created.marks.push_back(device.make_mark(fmt::format("slot {}, boundary {}", slot, i)));
    }
    created.classes.resize(created.marks.size());
  }
}

void StepAccount::begin(std::int64_t step) {
  current_ = step;
  Slot& slot = slots_[static_cast<std::size_t>(step % kSlots)];
  slot.step = step;
  slot.used = 1;
  compute_.mark(slot.marks[0]);
}

void StepAccount::mark(StepClass step_class) {
  Slot& slot = slots_[static_cast<std::size_t>(current_ % kSlots)];
  STRAKE_CHECK(slot.used < slot.marks.size(), "more marks in a step than planned");
  slot.classes[slot.used] = step_class;
  compute_.mark(slot.marks[slot.used]);
  ++slot.used;
}

void StepAccount::end() {
  compute_.mark(last_end_);
  ended_ = current_;
}

const StepAccount::Slot& StepAccount::slot_of(std::int64_t step) const {
  const Slot& slot = slots_[static_cast<std::size_t>(step % kSlots)];
  STRAKE_CHECK(slot.step == step, "the step's slot was used again");
  return slot;
}

const Mark& StepAccount::end_of(std::int64_t step) const {
  return step == ended_ ? last_end_ : slot_of(step + 1).marks[0];
}

bool StepAccount::complete(std::int64_t step) const { return device_.complete(end_of(step)); }

StepTimes StepAccount::read(std::int64_t step) const {
  const Slot& slot = slot_of(step);
  StepTimes times{.step = step};
  const auto add = [&](StepClass step_class, const Mark& from, const Mark& to) {
    const Nanoseconds whole = device_.elapsed(from, to);
    const bool host_waits = step_class == StepClass::kDataWait || step_class == StepClass::kCheckpoint ||
                            step_class == StepClass::kOther || step_class == StepClass::kHostGap;
    const Nanoseconds idle = host_waits ? Nanoseconds(0) : std::min(whole, device_.starved(from, to));
    times.classes[static_cast<std::size_t>(step_class)] += whole - idle;
    times.classes[static_cast<std::size_t>(StepClass::kHostGap)] += idle;
  };
  for (std::size_t i = 1; i < slot.used; ++i) add(slot.classes[i], slot.marks[i - 1], slot.marks[i]);
  add(StepClass::kHostGap, slot.marks[slot.used - 1], end_of(step));
  times.wall = device_.elapsed(slot.marks[0], end_of(step));
  return times;
}

Nanoseconds StepAccount::since_begin(std::int64_t step, const Mark& mark) const {
  return device_.elapsed(slot_of(step).marks[0], mark);
}

StepAccount::Span StepAccount::last(std::int64_t step, StepClass step_class) const {
  const Slot& slot = slot_of(step);
  for (std::size_t i = slot.used; i-- > 1;) {
    if (slot.classes[i] == step_class) return {since_begin(step, slot.marks[i - 1]), since_begin(step, slot.marks[i])};
  }
  return {Nanoseconds(0), Nanoseconds(0)};
}

}  // namespace strake::launch
