#include "data/loader.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/signals_blocked.h"
#include "runtime/device/host_memory.h"

namespace strake::data {
namespace {

constexpr WaitSite kSlotIsFree{"copy-in waits for the slot's last reader", Hazard::kWriteAfterRead};

// Raw futex, as in the CPU device: std::atomic::wait and mutexes would order threads that nothing else orders.
void park(std::atomic<std::uint32_t>& word, std::uint32_t seen) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
void publish(std::atomic<std::uint32_t>& word, std::uint32_t value) {
  word.store(value, std::memory_order_release);
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// What the training thread asks of the prefetch thread. One writer: the training thread. Everything in it is
// published by `posted`, whose value only says that something changed.
struct Orders {
  struct CopyOut {  // the latest copy out of a host slot
    std::atomic<EventState*> state{nullptr};
    std::atomic<std::uint32_t> number{0};
  };

  explicit Orders(int host_slots) : copies(static_cast<std::size_t>(host_slots)) {}

  std::atomic<std::uint32_t> posted{0};
  std::atomic<std::uint64_t> taken{0};  // steps whose copy is enqueued
  std::vector<CopyOut> copies;          // by host slot
  std::atomic<std::int64_t> first_sample{0};
  std::atomic<std::uint32_t> seeks{0};
  std::atomic<bool> stop{false};

  void post() { publish(posted, posted.load(std::memory_order_relaxed) + 1); }
};

// What the prefetch thread answers. One writer: the prefetch thread.
struct Progress {
  // Steps filled so far, modulo 2^31, and whether the next one failed: one word, so that it can be parked on. The
  // training thread reads it relaxed. What lies in the slot is ordered for its reader, the body of the copy,
  // which acquires this word itself.
  std::atomic<std::uint32_t> filled_and_failed{0};
  std::atomic<std::uint32_t> seeks_done{0};
  std::exception_ptr error;  // published by the failed bit

  static std::uint32_t word(std::uint64_t filled, bool failed) {
    return static_cast<std::uint32_t>(filled << 1) | (failed ? 1u : 0u);
  }
  static bool failed(std::uint32_t word) { return (word & 1u) != 0; }
  // Is step `index` in its slot? `index` is at most the number of slots away from the count.
  static bool holds(std::uint32_t word, std::uint64_t index) {
    const std::uint32_t ahead = ((word >> 1) - static_cast<std::uint32_t>(index)) & 0x7fffffffu;
    return ahead != 0 && ahead < 0x40000000u;
  }
};

}  // namespace

class Loader::Impl {
 public:
  Impl(Device& device, Stream& copy_in, Arena& host, Arena& device_memory, TokenSource& source,
       const SampleOrder& order, LoaderOptions options);
  ~Impl();

  void start();
  StepBatch next();
  StepBatch plan_batch();
  void release(const StepBatch& batch, Stream& compute);
  void seek(std::int64_t first_sample);

 private:
  struct DeviceSlot {
    Tensor all;                             // [micro_batches, 2, micro_batch, sequence] i32: tokens, targets
    std::vector<MicroBatch> micro_batches;  // views of it
    Event released;
    enum class State : std::uint8_t { kFree, kCopied, kInUse } state = State::kFree;
  };

  // Training thread.
  DeviceSlot& slot_of(std::uint64_t index) { return device_slots_[index % kDeviceSlots]; }
  Event& ready_of(std::uint64_t index) { return ready_[index % ready_.size()]; }
  bool filled(std::uint64_t index) const;
  void wait_until_filled(std::uint64_t index);
  void enqueue_copy();
  void copy_ahead();
  StepBatch take();

  // Prefetch thread.
  void prefetch();
  void fill(std::uint64_t host_slot, std::int64_t first_sample);

  Device& device_;
  Stream& copy_in_;
  TokenSource& source_;
  const SampleOrder order_;
  const LoaderOptions options_;
  const std::string copy_name_;
  std::vector<Tensor> host_slots_;  // as DeviceSlot::all
  std::vector<DeviceSlot> device_slots_;
  // Recorded behind the copies, in turn. As many as slots of either side: when one is recorded again, neither compute
  // nor the prefetch thread waits for its last record any more, and a ticket means that one (Device::host_wait).
  std::vector<Event> ready_;

  // Training thread. Batches count from 0 over the loader's life; a seek does not start the count again.
  std::uint64_t copied_ = 0;    // copies enqueued
  std::uint64_t returned_ = 0;  // steps that next() gave out, or that a seek dropped

  Orders orders_;
  Progress progress_;
  std::vector<std::int32_t> sample_;  // [sequence + 1], prefetch thread
  std::thread thread_;
};

Loader::Impl::Impl(Device& device, Stream& copy_in, Arena& host, Arena& device_memory, TokenSource& source,
                   const SampleOrder& order, LoaderOptions options)
    : device_(device),
      copy_in_(copy_in),
      source_(source),
      order_(order),
      options_(std::move(options)),
      copy_name_(options_.name + " batch h2d"),
      orders_(options_.host_slots) {
  STRAKE_CHECK(options_.micro_batches >= 1 && options_.micro_batch >= 1 && options_.sequence >= 1 &&
                   options_.host_slots >= 1 && options_.vocab >= 1,
               "loader '" + options_.name + "': sizes must be positive");
  STRAKE_CHECK(options_.ranks >= 1 && options_.rank >= 0 && options_.rank < options_.ranks,
               "loader '" + options_.name + "': rank out of range");
  STRAKE_CHECK(options_.first_sample >= 0, "loader '" + options_.name + "': samples count from 0");
  STRAKE_CHECK(order_.sequences() <= source_.sequences(options_.sequence),
               "loader '" + options_.name + "': the order reaches beyond the source");
  STRAKE_CHECK(host.kind() == MemoryKind::kHost, "arena '" + host.name() + "' is not host memory");
  const std::array<std::int64_t, 4> shape{options_.micro_batches, 2, options_.micro_batch, options_.sequence};
  for (int i = 0; i < options_.host_slots; ++i) host_slots_.push_back(Tensor::reserve(host, DType::kI32, shape));
  for (int i = 0; i < kDeviceSlots; ++i) {
    const Tensor all = Tensor::reserve(device_memory, DType::kI32, shape);
    const auto part = [&](std::int64_t micro, std::int64_t which) {
      const std::int64_t elems = options_.micro_batch * options_.sequence;
      return all.flat((2 * micro + which) * elems, elems).reshape({options_.micro_batch, options_.sequence});
    };
    std::vector<MicroBatch> micro_batches;
    for (std::int64_t micro = 0; micro < options_.micro_batches; ++micro) {
      micro_batches.push_back({.tokens = part(micro, 0), .targets = part(micro, 1)});
    }
    device_slots_.push_back({.all = all,
                             .micro_batches = std::move(micro_batches),
                             .released = device.make_event(fmt::format("{} batch {} released", options_.name, i))});
  }
  for (int i = 0; i < std::max(options_.host_slots, kDeviceSlots); ++i) {
    ready_.push_back(device.make_event(fmt::format("{} batch {} ready", options_.name, i)));
  }
  sample_.resize(static_cast<std::size_t>(options_.sequence) + 1);
  orders_.first_sample.store(options_.first_sample, std::memory_order_relaxed);
}

Loader::Impl::~Impl() {
  if (!thread_.joinable()) return;
  orders_.stop.store(true, std::memory_order_relaxed);
  orders_.post();
  thread_.join();
  if (copied_ == 0) return;
  try {
    // Queued copies read host slots and progress_.
    device_.host_wait(device_.ticket(ready_of(copied_ - 1)));
  } catch (...) {  // the device keeps its error, and check() reports it
  }
}

void Loader::Impl::start() {
  if (thread_.joinable()) return;
  const SignalsBlocked blocked;
  thread_ = std::thread([this] { prefetch(); });
}

bool Loader::Impl::filled(std::uint64_t index) const {
  return Progress::holds(progress_.filled_and_failed.load(std::memory_order_relaxed), index);
}

void Loader::Impl::wait_until_filled(std::uint64_t index) {
  while (true) {
    const std::uint32_t seen = progress_.filled_and_failed.load(std::memory_order_relaxed);
    if (Progress::holds(seen, index)) return;
    if (Progress::failed(seen)) {
      std::ignore = progress_.filled_and_failed.load(std::memory_order_acquire);  // orders the error
      std::rethrow_exception(progress_.error);
    }
    park(progress_.filled_and_failed, seen);
  }
}

// REQUIRES: step copied_ is filled and its device slot free.
void Loader::Impl::enqueue_copy() {
  DeviceSlot& slot = slot_of(copied_);
  const std::uint64_t host_slot = copied_ % host_slots_.size();
  const Tensor& source = host_slots_[host_slot];
  copy_in_.wait(slot.released, kSlotIsFree);
  copy_in_.launch(
      {.label = {copy_name_, Phase::kInput}, .kind = "copy", .reads = {&source, 1}, .writes = {&slot.all, 1}},
      [this, copy = device_.copy_body(slot.all, source)](NativeStream stream) {
        std::ignore = progress_.filled_and_failed.load(std::memory_order_acquire);  // orders the slot
        copy(stream);
      });
  copy_in_.record(ready_of(copied_));
  slot.state = DeviceSlot::State::kCopied;
  const EventTicket ticket = device_.ticket(ready_of(copied_));
  orders_.copies[host_slot].state.store(ticket.state, std::memory_order_relaxed);
  orders_.copies[host_slot].number.store(ticket.number, std::memory_order_relaxed);
  orders_.taken.store(++copied_, std::memory_order_relaxed);
  orders_.post();
}

void Loader::Impl::copy_ahead() {
  while (slot_of(copied_).state == DeviceSlot::State::kFree && filled(copied_)) enqueue_copy();
}

// REQUIRES: step returned_ is copied.
StepBatch Loader::Impl::take() {
  DeviceSlot& slot = slot_of(returned_);
  slot.state = DeviceSlot::State::kInUse;
  return {.micro_batches = slot.micro_batches,
          .ready = &ready_of(returned_),
          .slot = static_cast<int>(returned_++ % kDeviceSlots)};
}

StepBatch Loader::Impl::next() {
  start();
  if (returned_ == copied_) {
    STRAKE_CHECK(slot_of(returned_).state == DeviceSlot::State::kFree,
                 "loader '" + options_.name + "': release a batch before taking the next");
    wait_until_filled(copied_);
    enqueue_copy();
  }
  const StepBatch batch = take();
  copy_ahead();
  return batch;
}

StepBatch Loader::Impl::plan_batch() {
  STRAKE_CHECK(device_.kind() == DeviceKind::kPlan, "loader '" + options_.name + "': only a plan has empty batches");
  enqueue_copy();
  return take();
}

void Loader::Impl::release(const StepBatch& batch, Stream& compute) {
  STRAKE_CHECK(batch.slot >= 0 && batch.slot < kDeviceSlots, "loader '" + options_.name + "': no batch of this loader");
  DeviceSlot& slot = device_slots_[static_cast<std::size_t>(batch.slot)];
  STRAKE_CHECK(slot.state == DeviceSlot::State::kInUse, "loader '" + options_.name + "': batch released twice");
  compute.record(slot.released);
  slot.state = DeviceSlot::State::kFree;
  copy_ahead();
}

void Loader::Impl::seek(std::int64_t first_sample) {
  STRAKE_CHECK(first_sample >= 0, "loader '" + options_.name + "': samples count from 0");
  for (DeviceSlot& slot : device_slots_) {
    STRAKE_CHECK(slot.state != DeviceSlot::State::kInUse, "loader '" + options_.name + "': seek with a batch in use");
    slot.state = DeviceSlot::State::kFree;  // a copy ahead is overwritten by the next, in stream order
  }
  returned_ = copied_;
  orders_.first_sample.store(first_sample, std::memory_order_relaxed);
  if (!thread_.joinable()) return;
  const std::uint32_t number = orders_.seeks.load(std::memory_order_relaxed) + 1;
  orders_.seeks.store(number, std::memory_order_relaxed);
  orders_.post();
  for (std::uint32_t seen; (seen = progress_.seeks_done.load(std::memory_order_acquire)) != number;) {
    park(progress_.seeks_done, seen);
  }
}

void Loader::Impl::prefetch() {
  pthread_setname_np(pthread_self(), (options_.name.substr(0, 6) + "-prefetch").c_str());
  std::uint64_t filled = 0;
  std::uint64_t origin = 0;  // the step that begins at `first_sample`
  std::int64_t first_sample = orders_.first_sample.load(std::memory_order_relaxed);
  std::uint32_t seeks = 0;
  bool failed = false;
  while (true) {
    const std::uint32_t seen = orders_.posted.load(std::memory_order_acquire);
    if (orders_.stop.load(std::memory_order_relaxed)) return;
    const std::uint64_t taken = orders_.taken.load(std::memory_order_relaxed);
    if (orders_.seeks.load(std::memory_order_relaxed) != seeks) {
      seeks = orders_.seeks.load(std::memory_order_relaxed);
      first_sample = orders_.first_sample.load(std::memory_order_relaxed);
      origin = filled = taken;
      failed = false;
      progress_.error = nullptr;
      progress_.filled_and_failed.store(Progress::word(filled, failed), std::memory_order_release);
      publish(progress_.seeks_done, seeks);
      continue;
    }
    if (failed || filled - taken >= host_slots_.size()) {
      park(orders_.posted, seen);
      continue;
    }
    const std::uint64_t host_slot = filled % host_slots_.size();
    const Orders::CopyOut& copy = orders_.copies[host_slot];
    try {
      // WAR: the copy out of this slot must have run before the slot is filled again.
      if (EventState* state = copy.state.load(std::memory_order_relaxed); state != nullptr) {
        device_.host_wait({state, copy.number.load(std::memory_order_relaxed)});
      }
      fill(host_slot, first_sample + static_cast<std::int64_t>(filled - origin) * options_.step_samples());
      ++filled;
    } catch (...) {
      progress_.error = std::current_exception();
      failed = true;
    }
    publish(progress_.filled_and_failed, Progress::word(filled, failed));
  }
}

// Of the step that begins at sample `first_sample`, this rank's samples in order: its micro-batches one behind the
// other.
void Loader::Impl::fill(std::uint64_t host_slot, std::int64_t first_sample) {
  const std::span<std::int32_t> slot = host_span<std::int32_t>(host_slots_[host_slot]);
  const auto row_tokens = static_cast<std::size_t>(options_.sequence);
  const std::size_t part_tokens = static_cast<std::size_t>(options_.micro_batch) * row_tokens;
  std::int64_t sample = first_sample + options_.rank * options_.micro_batches * options_.micro_batch;
  for (std::size_t tokens = 0; tokens < slot.size(); tokens += 2 * part_tokens) {
    const std::size_t targets = tokens + part_tokens;
    for (std::size_t at = 0; at < part_tokens; at += row_tokens) {
      const std::int64_t begin = order_.sequence_of(sample++) * options_.sequence;
      source_.read(begin, sample_);
      require_ids_below(options_.vocab, source_, begin, sample_);
      std::ranges::copy(std::span(sample_).first(row_tokens), slot.subspan(tokens + at).begin());
      std::ranges::copy(std::span(sample_).last(row_tokens), slot.subspan(targets + at).begin());
    }
  }
}

Loader::Loader(Device& device, Stream& copy_in, Arena& host, Arena& device_memory, TokenSource& source,
               const SampleOrder& order, LoaderOptions options)
    : impl_(std::make_unique<Impl>(device, copy_in, host, device_memory, source, order, std::move(options))) {}
Loader::~Loader() = default;
void Loader::start() { impl_->start(); }
StepBatch Loader::next() { return impl_->next(); }
void Loader::release(const StepBatch& batch, Stream& compute) { impl_->release(batch, compute); }
void Loader::seek(std::int64_t first_sample) { impl_->seek(first_sample); }
StepBatch Loader::plan_batch() { return impl_->plan_batch(); }

}  // namespace strake::data
