#include "runtime/device/recording.h"

#include <fmt/format.h>

#include <algorithm>

namespace strake {
namespace {

RecordedAccess access_of(const Tensor& tensor) {
  return {&tensor.arena(), tensor.arena().name(), tensor.offset_bytes(), tensor.offset_bytes() + tensor.extent_bytes(),
          tensor.contiguous()};
}

struct PlanEventState final : EventState {
  explicit PlanEventState(int of_device) : index(of_device) {}
  int index;
};

int index_of(const Event& event) { return static_cast<const PlanEventState&>(event.state()).index; }

struct PlanMarkState final : MarkState {};

class PlanStream final : public Stream {
 public:
  PlanStream(PlanDevice& device, std::string_view name, int index) : device_(device), name_(name), index_(index) {}

  void launch(const Operation& operation, Body) override {
    RecordedEntry entry{.kind = RecordedEntry::Kind::kOperation,
                        .stream = index_,
                        .name = std::string(operation.label.name),
                        .kernel = std::string(operation.kind),
                        .phase = operation.label.phase,
                        .recomputed = operation.label.recomputed,
                        .reads = {},
                        .writes = {},
                        .flops = operation.flops,
                        .bytes = operation.bytes,
                        .workspace_bytes = operation.workspace_bytes,
                        .wait_site = {}};
    double touched_bytes = 0;
    for (const Tensor& tensor : operation.reads) {
      if (!tensor.defined()) continue;
      entry.reads.push_back(access_of(tensor));
      touched_bytes += static_cast<double>(tensor.elems()) * static_cast<double>(size_bytes(tensor.dtype()));
    }
    for (const Tensor& tensor : operation.writes) {
      if (!tensor.defined()) continue;
      entry.writes.push_back(access_of(tensor));
      touched_bytes += static_cast<double>(tensor.elems()) * static_cast<double>(size_bytes(tensor.dtype()));
    }
    if (entry.bytes == 0) entry.bytes = touched_bytes;
    device_.recording().entries.push_back(std::move(entry));
  }
  void record(Event& event) override {
    device_.recording().entries.push_back({.kind = RecordedEntry::Kind::kRecord,
                                           .stream = index_,
                                           .event = index_of(event),
                                           .name = event.name(),
                                           .kernel = {},
                                           .reads = {},
                                           .writes = {},
                                           .wait_site = {}});
  }
  void wait(const Event& event, WaitSite site) override {
    device_.recording().entries.push_back({.kind = RecordedEntry::Kind::kWait,
                                           .stream = index_,
                                           .event = index_of(event),
                                           .name = event.name(),
                                           .kernel = {},
                                           .reads = {},
                                           .writes = {},
                                           .wait_site = std::string(site.name),
                                           .hazard = site.hazard});
  }
  void mark(Mark& mark) override {
    device_.recording().entries.push_back({.kind = RecordedEntry::Kind::kMark,
                                           .stream = index_,
                                           .name = mark.name(),
                                           .kernel = {},
                                           .reads = {},
                                           .writes = {},
                                           .wait_site = {}});
  }
  void synchronize() override {}
  Device& device() const override { return device_; }
  const std::string& name() const override { return name_; }
  int index() const override { return index_; }

 private:
  PlanDevice& device_;
  std::string name_;
  int index_;
};

}  // namespace

double Recording::flops() const {
  double sum = 0;
  for (const RecordedEntry& entry : entries) sum += entry.recomputed ? 0 : entry.flops;
  return sum;
}

double Recording::recomputed_flops() const {
  double sum = 0;
  for (const RecordedEntry& entry : entries) sum += entry.recomputed ? entry.flops : 0;
  return sum;
}

double Recording::bytes(Phase phase) const {
  double sum = 0;
  for (const RecordedEntry& entry : entries) {
    if (entry.phase == phase) sum += entry.bytes;
  }
  return sum;
}

std::size_t Recording::workspace_bytes(int stream) const {
  std::size_t largest = 0;
  for (const RecordedEntry& entry : entries) {
    if (entry.stream == stream) largest = std::max(largest, entry.workspace_bytes);
  }
  return largest;
}

std::string Recording::describe() const {
  std::string out;
  std::vector<int> operations(streams.size()), waits(streams.size());
  std::vector<double> flops_of(streams.size()), recomputed_flops_of(streams.size()), bytes_of(streams.size());
  for (const RecordedEntry& entry : entries) {
    const auto stream = static_cast<std::size_t>(entry.stream);
    switch (entry.kind) {
      case RecordedEntry::Kind::kOperation:
        out += fmt::format("{:<9} {:<10} {:<34} {:<28} {:>10.3f} MFLOP {:>10.3f} MB{}\n", streams[stream],
                           name_of(entry.phase), entry.name, entry.kernel, entry.flops / 1e6, entry.bytes / 1e6,
                           entry.recomputed ? "  recomputed" : "");
        ++operations[stream];
        (entry.recomputed ? recomputed_flops_of : flops_of)[stream] += entry.flops;
        bytes_of[stream] += entry.bytes;
        break;
      case RecordedEntry::Kind::kRecord:
        out += fmt::format("{:<9} record     {}\n", streams[stream], entry.name);
        break;
      case RecordedEntry::Kind::kWait:
        out += fmt::format("{:<9} WAIT {}   {} (event: {})\n", streams[stream], name_of(entry.hazard), entry.wait_site,
                           entry.name);
        ++waits[stream];
        break;
      case RecordedEntry::Kind::kMark:
        out += fmt::format("{:<9} mark       {}\n", streams[stream], entry.name);
        break;
    }
  }
  for (std::size_t stream = 0; stream < streams.size(); ++stream) {
    out += fmt::format("stream {:<9} {:>5} operations {:>4} waits {:>12.3f} GFLOP {:>12.3f} MB", streams[stream],
                       operations[stream], waits[stream], flops_of[stream] / 1e9, bytes_of[stream] / 1e6);
    if (recomputed_flops_of[stream] > 0) {
      out += fmt::format(", and {:.3f} GFLOP recomputed", recomputed_flops_of[stream] / 1e9);
    }
    out += '\n';
  }
  return out;
}

PlanDevice::PlanDevice() = default;
PlanDevice::PlanDevice(const Device& target) : target_(&target) {}
PlanDevice::PlanDevice(DeviceKind target) : kind_(target) {}
PlanDevice::~PlanDevice() = default;

std::unique_ptr<Stream> PlanDevice::make_stream(std::string_view name, StreamPriority) {
  recording_.streams.emplace_back(name);
  return std::make_unique<PlanStream>(*this, name, static_cast<int>(recording_.streams.size()) - 1);
}

Event PlanDevice::make_event(std::string_view name) {
  events_.push_back(std::make_unique<PlanEventState>(static_cast<int>(events_.size())));
  return Event(*events_.back(), name);
}

Mark PlanDevice::make_mark(std::string_view name) {
  marks_.push_back(std::make_unique<PlanMarkState>());
  return Mark(*marks_.back(), name);
}

// Plan memory has no address; nothing may touch it because no body ever runs.
DeviceAddress PlanDevice::allocate(std::string_view, std::size_t, MemoryKind) { return {0}; }

}  // namespace strake
