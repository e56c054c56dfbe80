#include "runtime/device/timed_device.h"

#include <fmt/format.h>

#include <utility>

#include "runtime/base/check.h"

namespace strake {
namespace {

// One operation in so many has an empty interval behind it.
constexpr std::size_t kOperationsPerEmpty = 16;

void add_operands(std::span<const Tensor> tensors, std::vector<DeclaredOperation::Operand>& operands, double& bytes) {
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    DeclaredOperation::Operand& operand = operands.emplace_back(DeclaredOperation::Operand{tensor.dtype(), {}});
    for (int axis = 0; axis < tensor.rank(); ++axis) operand.sizes.push_back(tensor.size(axis));
    bytes += static_cast<double>(tensor.elems()) * static_cast<double>(size_bytes(tensor.dtype()));
  }
}

DeclaredOperation declared(const Operation& operation) {
  DeclaredOperation out{.name = std::string(operation.label.name),
                        .kind = std::string(operation.kind),
                        .phase = operation.label.phase,
                        .writes = {},
                        .reads = {},
                        .flops = operation.flops,
                        .bytes = 0};
  add_operands(operation.writes, out.writes, out.bytes);
  add_operands(operation.reads, out.reads, out.bytes);
  if (operation.bytes > 0) out.bytes = operation.bytes;
  return out;
}

}  // namespace

class TimedDevice::TimedStream final : public ForwardingStream {
 public:
  TimedStream(TimedDevice& device, std::unique_ptr<Stream> inner)
      : ForwardingStream(device, std::move(inner)), timed_(device) {}
  // Before the stream drains.
  ~TimedStream() override { timed_.end_run(); }

  void launch(const Operation& operation, Body body) override {
    Slot* const slot = timed_.current_;
    if (slot == nullptr) return ForwardingStream::launch(operation, std::move(body));
    if (slot->operations.empty() && slot->released != nullptr) hold(*slot);
    if (!at_mark_ || slot->used == 0) make_mark(*slot);
    const std::size_t begin = slot->used - 1;
    declare(*slot, operation);
    ForwardingStream::launch(operation, std::move(body));
    make_mark(*slot);
    slot->operations.push_back({begin, slot->used - 1});
    const std::size_t operations = slot->operations.size();
    if (operations % kOperationsPerEmpty == 1) {
      make_mark(*slot);
      slot->empty.push_back({slot->used - 2, slot->used - 1});
    }
    if (slot->released != nullptr && operations == static_cast<std::size_t>(timed_.options_.lead_operations)) {
      slot->released->raise();
    }
  }
  void wait(const Event& event, WaitSite site) override {
    at_mark_ = false;
    ForwardingStream::wait(event, site);
  }
  void mark(Mark& mark) override {
    at_mark_ = false;
    ForwardingStream::mark(mark);
  }

 private:
  // A host that has to stay ahead copies no more than it must: what was declared at this place before is kept.
  static void declare(Slot& slot, const Operation& operation) {
    const std::size_t place = slot.operations.size();
    const bool known = place < slot.declared.size() && slot.declared[place].name == operation.label.name &&
                       slot.declared[place].kind == operation.kind;
    if (known) return;
    slot.declared.resize(place);
    slot.declared.push_back(declared(operation));
  }
  void make_mark(Slot& slot) {
    if (slot.used == slot.marks.size()) slot.marks.push_back(timed_.make_mark("boundary of a timed operation"));
    ForwardingStream::mark(slot.marks[slot.used++]);
    at_mark_ = true;
  }
  void hold(Slot& slot) {
    make_mark(slot);
    ForwardingStream::launch({.label = {"held until the host is ahead"}, .kind = "hold", .reads = {}, .writes = {}},
                             slot.released->await_body(timed_.inner()));
    make_mark(slot);
    slot.held = 1;
  }

  TimedDevice& timed_;
  bool at_mark_ = false;  // nothing was enqueued behind the latest of our marks
};

TimedDevice::TimedDevice(Device& inner, Options options) : ForwardingDevice(inner), options_(std::move(options)) {
  if (options_.lead_operations == 0) return;
  for (Slot& slot : slots_) slot.released = std::make_unique<HostFlag>(flags_);
  flags_.allocate(inner);
}

TimedDevice::~TimedDevice() = default;

std::unique_ptr<Stream> TimedDevice::make_stream(std::string_view name, StreamPriority priority) {
  if (name != options_.stream) return ForwardingDevice::make_stream(name, priority);
  return std::make_unique<TimedStream>(*this, inner().make_stream(name, priority));
}

void TimedDevice::begin_run(std::int64_t run) {
  end_run();
  current_ = &slots_[static_cast<std::size_t>(run % kSlots)];
  current_->run = run;
  current_->used = current_->held = 0;
  current_->operations.clear();
  current_->empty.clear();
  if (current_->released != nullptr) current_->released->lower();
}

void TimedDevice::end_run() {
  if (current_ == nullptr) return;
  current_->declared.resize(current_->operations.size());
  if (current_->released != nullptr) current_->released->raise();
  current_ = nullptr;
}

TimedDevice::Times TimedDevice::times(std::int64_t run) const {
  const Slot& slot = slot_of(run);
  const auto between = [&](const Interval& interval) {
    const Mark &from = slot.marks[interval.begin], &to = slot.marks[interval.end];
    return elapsed(from, to) - starved(from, to);
  };
  Times out;
  for (const Interval& interval : slot.operations) out.operations.push_back(between(interval));
  for (const Interval& interval : slot.empty) out.empty.push_back(between(interval));
  if (slot.held > 0) out.held = elapsed(slot.marks[0], slot.marks[1]);
  return out;
}

const std::vector<DeclaredOperation>& TimedDevice::operations(std::int64_t run) const { return slot_of(run).declared; }

const TimedDevice::Slot& TimedDevice::slot_of(std::int64_t run) const {
  const Slot& slot = slots_[static_cast<std::size_t>(run % kSlots)];
  STRAKE_CHECK(slot.run == run, fmt::format("run {} was not timed, or its marks were made again", run));
  return slot;
}

}  // namespace strake
