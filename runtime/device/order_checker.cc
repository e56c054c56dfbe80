#include "runtime/device/order_checker.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/base/error.h"

namespace strake {

std::string OrderChecker::Report::describe() const {
  return fmt::format("{}: '{}' on stream {} is not ordered after '{}' on stream {} (arena {}, bytes {}-{})",
                     write_after_write ? "WAW" : name_of(hazard), operation, stream, earlier_operation, earlier_stream,
                     arena, begin_bytes, end_bytes);
}

std::uint32_t OrderChecker::name_index(std::string_view name) {
  const auto [found, inserted] =
      name_indices_.try_emplace(std::string(name), static_cast<std::uint32_t>(names_.size()));
  if (inserted) names_.emplace_back(name);
  return found->second;
}

void OrderChecker::name_stream(int stream, std::string name) {
  const auto index = static_cast<std::size_t>(stream);
  if (stream_names_.size() <= index) stream_names_.resize(index + 1);
  stream_names_[index] = std::move(name);
}

OrderChecker::Cells::iterator OrderChecker::cover(Cells& cells, std::size_t begin_bytes, std::size_t end_bytes) {
  const auto split_at = [&cells](std::size_t at) {
    auto after = cells.upper_bound(at);
    if (after == cells.begin()) return;
    auto cell = std::prev(after);
    if (cell->first == at || cell->second.end_bytes <= at) return;
    Cell upper = cell->second;
    cell->second.end_bytes = at;
    cells.emplace_hint(after, at, std::move(upper));
  };
  split_at(begin_bytes);
  split_at(end_bytes);
  // Fill the gaps with untouched cells.
  std::size_t at = begin_bytes;
  auto cell = cells.lower_bound(begin_bytes);
  while (at < end_bytes) {
    if (cell == cells.end() || cell->first > at) {
      const std::size_t gap_end = cell == cells.end() ? end_bytes : std::min(end_bytes, cell->first);
      cell = cells.emplace_hint(cell, at, Cell{gap_end, {}, {}});
    }
    at = cell->second.end_bytes;
    ++cell;
  }
  return cells.find(begin_bytes);
}

void OrderChecker::report(const Access& earlier, int stream, std::string_view operation, const Tensor& tensor,
                          Hazard hazard, bool write_after_write) {
  Report found{.hazard = hazard,
               .write_after_write = write_after_write,
               .operation = std::string(operation),
               .stream = stream_names_.at(static_cast<std::size_t>(stream)),
               .earlier_operation = names_.at(earlier.name),
               .earlier_stream = stream_names_.at(static_cast<std::size_t>(earlier.moment.stream)),
               .arena = tensor.arena().name(),
               .begin_bytes = tensor.offset_bytes(),
               .end_bytes = tensor.offset_bytes() + tensor.extent_bytes()};
  const bool seen = std::any_of(reports_.begin(), reports_.end(), [&](const Report& other) {
    return other.operation == found.operation && other.earlier_operation == found.earlier_operation &&
           other.hazard == found.hazard && other.write_after_write == found.write_after_write;
  });
  if (!seen) reports_.push_back(std::move(found));
}

template <typename Visit>
void OrderChecker::for_each_cell(std::span<const Tensor> tensors, Visit visit) {
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.extent_bytes() == 0) continue;
    Cells& cells = arenas_[&tensor.arena()];
    const std::size_t end_bytes = tensor.offset_bytes() + tensor.extent_bytes();
    for (auto cell = cover(cells, tensor.offset_bytes(), end_bytes); cell != cells.end() && cell->first < end_bytes;
         ++cell) {
      visit(tensor, cell->second);
    }
  }
}

void OrderChecker::launch(int stream, const Operation& operation) {
  ++operations_;
  const Access access{clocks_.launch(stream), name_index(operation.label.name)};
  const Clock& now = clocks_.now(stream);
  const auto check = [&](const Access& earlier, const Tensor& tensor, Hazard hazard, bool write_after_write) {
    if (!ordered(earlier.moment, now)) {
      report(earlier, stream, operation.label.name, tensor, hazard, write_after_write);
    }
  };

  for_each_cell(operation.reads, [&](const Tensor& tensor, Cell& cell) {
    check(cell.last_write, tensor, Hazard::kReadAfterWrite, false);
    const auto same = std::find_if(cell.reads.begin(), cell.reads.end(),
                                   [&](const Access& read) { return read.moment.stream == stream; });
    if (same != cell.reads.end()) {
      *same = access;
    } else {
      cell.reads.push_back(access);
    }
  });
  for_each_cell(operation.writes, [&](const Tensor& tensor, Cell& cell) {
    check(cell.last_write, tensor, Hazard::kWriteAfterRead, true);
    for (const Access& read : cell.reads) check(read, tensor, Hazard::kWriteAfterRead, false);
    cell.last_write = access;
    cell.reads.clear();
  });
}

void OrderChecker::record(int stream, const EventState& event) { events_[&event] = clocks_.now(stream); }

void OrderChecker::wait(int stream, const EventState& event) {
  const auto found = events_.find(&event);
  if (found != events_.end()) clocks_.wait(stream, found->second);
}

void OrderChecker::synchronize_stream(int stream) { clocks_.synchronize(clocks_.now(stream)); }

void OrderChecker::synchronize_event(const EventState& event) {
  const auto found = events_.find(&event);
  if (found != events_.end()) clocks_.synchronize(found->second);
}

namespace {

class CheckedStream final : public ForwardingStream {
 public:
  CheckedStream(CheckedDevice& device, std::unique_ptr<Stream> inner)
      : ForwardingStream(device, std::move(inner)), device_(device) {
    device_.checker().name_stream(index(), name());
  }
  ~CheckedStream() override { device_.checker().synchronize_stream(index()); }  // it drains
  void launch(const Operation& operation, Body body) override {
    device_.checker().launch(index(), operation);
    device_.enforce();
    ForwardingStream::launch(operation, std::move(body));
  }
  void record(Event& event) override {
    device_.checker().record(index(), event.state());
    ForwardingStream::record(event);
  }
  void wait(const Event& event, WaitSite site) override {
    device_.checker().wait(index(), event.state());
    ForwardingStream::wait(event, site);
  }
  void synchronize() override {
    ForwardingStream::synchronize();
    device_.checker().synchronize_stream(index());
  }

 private:
  CheckedDevice& device_;
};

}  // namespace

std::unique_ptr<Stream> CheckedDevice::make_stream(std::string_view name, StreamPriority priority) {
  return std::make_unique<CheckedStream>(*this, inner().make_stream(name, priority));
}

void CheckedDevice::synchronize(const Event& event) {
  ForwardingDevice::synchronize(event);
  checker_.synchronize_event(event.state());
}

void CheckedDevice::enforce() const {
  if (policy_ == Policy::kThrow && !checker_.reports().empty()) {
    throw DeviceError("order check: " + checker_.reports().front().describe() + ". This is a bug in the schedule");
  }
}

}  // namespace strake
