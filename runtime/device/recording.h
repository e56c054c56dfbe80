// Recording: the schedule of a step as data, and the plan device that makes it without running anything.
//
// The plan device accepts every call, allocates nothing and throws operation bodies away. A dry run on it
// precedes allocation: the memory plan, `--print-schedule` and the list of waits come from its recording. A wait binds
// to the latest record of its event before it; without one, to the last record of an earlier step, if there was any.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/device/device.h"

namespace strake {

struct RecordedAccess {
  const Arena* arena;
  std::string arena_name;
  std::size_t begin_bytes;
  std::size_t end_bytes;
  bool dense;  // every byte of the range, not only some of a strided view
};

struct RecordedEntry {
  enum class Kind { kOperation, kRecord, kWait, kMark } kind;
  int stream;
  int event = -1;      // of a record or a wait: which of the device's events, whose names may repeat
  std::string name;    // of the operation, the event or the mark
  std::string kernel;  // Operation::kind
  Phase phase = Phase::kOther;
  bool recomputed = false;
  std::vector<RecordedAccess> reads;
  std::vector<RecordedAccess> writes;
  double flops = 0;
  double bytes = 0;
  std::size_t workspace_bytes = 0;
  std::string wait_site;  // of a wait
  Hazard hazard = Hazard::kReadAfterWrite;
};

struct Recording {
  std::vector<std::string> streams;  // by index
  std::vector<RecordedEntry> entries;

  double flops() const;  // of the step, without what is recomputed
  double recomputed_flops() const;
  double bytes(Phase phase) const;
  // The largest workspace that an operation of this stream needs.
  std::size_t workspace_bytes(int stream) const;
  // One line an entry: stream, operation or wait with its hazard, MFLOP, MB, whether it is recomputed; then totals a
  // stream.
  std::string describe() const;
};

class PlanDevice final : public Device {
 public:
  // Plans for the CPU device; for `target`, which outlives this device; or for a kind of which none need be here: then
  // kernels are declared and none is built, and what a GPU's kernels take of the workspace is not known.
  PlanDevice();
  explicit PlanDevice(const Device& target);
  explicit PlanDevice(DeviceKind target);
  ~PlanDevice() override;

  Recording& recording() { return recording_; }

  DeviceKind kind() const override { return DeviceKind::kPlan; }
  DeviceKind target() const override { return target_ == nullptr ? kind_ : target_->target(); }
  KernelState* kernel_state() const override { return target_ == nullptr ? nullptr : target_->kernel_state(); }
  std::string description() const override { return "plan"; }
  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override;
  Event make_event(std::string_view name) override;
  Mark make_mark(std::string_view name) override;
  DeviceAddress allocate(std::string_view name, std::size_t size_bytes, MemoryKind kind) override;
  void free(DeviceAddress, MemoryKind) noexcept override {}
  std::size_t allocated_bytes() const override { return 0; }
  bool complete(const Event&) const override { return true; }
  bool complete(const Mark&) const override { return true; }
  void synchronize(const Event&) override {}
  EventTicket ticket(const Event& event) const override { return {&event.state(), 0}; }
  void host_wait(EventTicket) override {}
  Nanoseconds elapsed(const Mark&, const Mark&) const override { return Nanoseconds(0); }
  Nanoseconds starved(const Mark&, const Mark&) const override { return Nanoseconds(0); }
  void check() override {}
  Body copy_body(const Tensor&, const Tensor&) override { return {}; }
  Body zero_body(const Tensor&) override { return {}; }
  Body raise_body(const Tensor&) override { return {}; }
  Body await_body(const Tensor&) override { return {}; }

 private:
  const Device* target_ = nullptr;  // null: none of `kind_` that is here
  DeviceKind kind_ = DeviceKind::kCpu;
  Recording recording_;
  std::vector<std::unique_ptr<EventState>> events_;
  std::vector<std::unique_ptr<MarkState>> marks_;
};

}  // namespace strake
