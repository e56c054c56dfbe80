#include "data/loader.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/order_checker.h"
#include "runtime/device/recording.h"
#include "tests/support/counting_source.h"
#include "tests/support/failing_source.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gate.h"
#include "tests/support/throttled_source.h"

namespace strake::data {
namespace {

using test::CountingSource;
using test::Gate;
using test::wait_until;

constexpr WaitSite kBatchReady{"compute waits for the batch", Hazard::kReadAfterWrite};
constexpr std::string_view kSlotIsFree = "copy-in waits for the slot's last reader";

// A source that calls back before each read: to hold the prefetch thread, or to look at what it may do when.
class WatchedSource final : public TokenSource {
 public:
  WatchedSource(TokenSource& inner, std::function<void(std::int64_t read)> before) : inner_(inner), before_(before) {}

  std::int64_t tokens() const override { return inner_.tokens(); }
  void read(std::int64_t begin, std::span<std::int32_t> out) override {
    before_(reads_++);
    inner_.read(begin, out);
  }
  std::string describe() const override { return inner_.describe(); }

 private:
  TokenSource& inner_;
  std::function<void(std::int64_t)> before_;
  std::int64_t reads_ = 0;
};

void append(std::vector<std::int32_t>& seen, const MicroBatch& micro) {
  for (const Tensor& part : {micro.tokens, micro.targets}) {
    const auto* begin = cpu::data<std::int32_t>(part);
    seen.insert(seen.end(), begin, begin + part.elems());
  }
}

// A rank: a device with checker and faults, its two streams, and arenas.
class Rank {
 public:
  Rank()
      : cpu_(make_cpu_device()),
        checked_(*cpu_, CheckedDevice::Policy::kCollect),
        faulty_(checked_),
        host_("host", MemoryKind::kHost),
        memory_("inputs", MemoryKind::kDevice),
        compute_(faulty_.make_stream("compute", StreamPriority::kNormal)),
        copy_in_(faulty_.make_stream("copy-in", StreamPriority::kNormal)) {}

  void make_loader(TokenSource& source, const SampleOrder& order, LoaderOptions options) {
    loader_.emplace(faulty_, *copy_in_, host_, memory_, source, order, options);
    host_.allocate(faulty_);
    memory_.allocate(faulty_);
  }

  // Enqueues on the compute stream: wait for the batch; copy what each micro-batch holds then to `seen`, behind the
  // gate (if any) from micro-batch `held` on.
  void use(const StepBatch& batch, std::vector<std::int32_t>& seen, Gate* gate = nullptr, std::size_t held = 0) {
    compute_->wait(*batch.ready, kBatchReady);
    for (std::size_t i = 0; i < batch.micro_batches.size(); ++i) {
      const MicroBatch& micro = batch.micro_batches[i];
      const Tensor reads[] = {micro.tokens, micro.targets};
      compute_->launch({.label = {"use", Phase::kForward}, .kind = "use", .reads = reads, .writes = {}},
                       [&seen, gate = i == held ? gate : nullptr, micro](NativeStream) {
                         if (gate != nullptr) gate->pass();
                         append(seen, micro);
                       });
    }
  }
  void step(std::vector<std::int32_t>& seen, Gate* gate = nullptr) {
    const StepBatch batch = loader().next();
    use(batch, seen, gate);
    loader().release(batch, *compute_);
  }

  Loader& loader() { return *loader_; }
  void drop_loader() { loader_.reset(); }
  Stream& compute() { return *compute_; }
  Stream& copy_in() { return *copy_in_; }
  test::FaultyDevice& device() { return faulty_; }
  OrderChecker& checker() { return checked_.checker(); }

 private:
  std::unique_ptr<Device> cpu_;
  CheckedDevice checked_;
  test::FaultyDevice faulty_;
  Arena host_;
  Arena memory_;
  std::unique_ptr<Stream> compute_;
  std::unique_ptr<Stream> copy_in_;
  std::optional<Loader> loader_;
};

LoaderOptions options_of(std::int64_t micro_batches, std::int64_t micro_batch, std::int64_t sequence) {
  return {.name = "train",
          .micro_batches = micro_batches,
          .micro_batch = micro_batch,
          .sequence = sequence,
          .host_slots = 4,
          .vocab = INT32_MAX};
}

// What use() sees of the step that begins at sample `first`, of one rank, for a CountingSource.
void append_expected(std::vector<std::int32_t>& out, const SampleOrder& order, const LoaderOptions& options,
                     std::int64_t first) {
  for (std::int64_t micro = 0; micro < options.micro_batches; ++micro) {
    for (const std::int64_t shift : {0, 1}) {
      for (std::int64_t row = 0; row < options.micro_batch; ++row) {
        const std::int64_t begin = order.sequence_of(first + micro * options.micro_batch + row) * options.sequence;
        for (std::int64_t t = 0; t < options.sequence; ++t) out.push_back(static_cast<std::int32_t>(begin + t + shift));
      }
    }
  }
}

std::vector<std::int32_t> expected_steps(const SampleOrder& order, const LoaderOptions& options, int steps) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < steps; ++i)
    append_expected(out, order, options, options.first_sample + i * options.step_samples());
  return out;
}

TEST(Loader, HundredsOfStepsThroughTheSlots) {
  constexpr std::uint64_t kSeed = 11;
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  CountingSource source(3001);
  const SampleOrder order = SampleOrder::shuffled(kSeed, source.sequences(16));
  for (const std::string slow : {"none", "compute", "copy-in", "both"}) {
    for (const int host_slots : {1, 2, 5}) {
      const std::int64_t micro_batches = host_slots == 2 ? 3 : 1;
      std::vector<std::int32_t> seen;
      Rank rank;
      auto& delays = rank.device().faults().delays;
      for (const std::string stream : {"compute", "copy-in"}) {
        if (slow != stream && slow != "both") continue;
        delays.push_back({.target = {.stream = stream}, .random = std::chrono::microseconds(100)});
      }
      LoaderOptions options = options_of(micro_batches, 4, 16);
      options.host_slots = host_slots;
      rank.make_loader(source, order, options);
      constexpr int kSteps = 300;  // three epochs and more
      for (int i = 0; i < kSteps; ++i) rank.step(seen);
      rank.compute().synchronize();
      EXPECT_EQ(seen, expected_steps(order, options, kSteps)) << "slow " << slow << ", slots " << host_slots;
      for (const auto& report : rank.checker().reports()) ADD_FAILURE() << report.describe();
    }
  }
}

// Which samples a step consumes, and in which global order, depends on nothing but the step.
TEST(Loader, OrderIsIndependentOfTheWorld) {
  CountingSource source(2000);
  const SampleOrder order = SampleOrder::shuffled(5, source.sequences(8));
  constexpr std::int64_t kGlobalBatch = 24;
  constexpr int kSteps = 12;  // epochs end within steps
  std::vector<std::int32_t> expected;
  for (std::int64_t sample = 0; sample < kSteps * kGlobalBatch; ++sample) {
    expected.push_back(static_cast<std::int32_t>(order.sequence_of(sample)));
  }
  for (const int ranks : {1, 2, 3, 4}) {
    for (const int micro_batch : {1, 2, 3, 6}) {
      if (kGlobalBatch % (ranks * micro_batch) != 0) continue;
      std::vector<std::vector<std::int32_t>> of_step(kSteps);
      for (int r = 0; r < ranks; ++r) {
        std::vector<std::vector<std::int32_t>> seen(kSteps);
        Rank rank;
        LoaderOptions options = options_of(kGlobalBatch / ranks / micro_batch, micro_batch, 8);
        options.rank = r;
        options.ranks = ranks;
        rank.make_loader(source, order, options);
        EXPECT_EQ(options.step_samples(), kGlobalBatch);
        for (auto& of_this_step : seen) rank.step(of_this_step);
        rank.compute().synchronize();
        for (int step = 0; step < kSteps; ++step) {
          // The first token of each input row says which sequence it is; each micro-batch is inputs, then targets.
          const auto& tokens = seen[static_cast<std::size_t>(step)];
          for (std::size_t row = 0; row < tokens.size() / 8; ++row) {
            const bool input = row / static_cast<std::size_t>(micro_batch) % 2 == 0;
            if (input) of_step[static_cast<std::size_t>(step)].push_back(tokens[row * 8] / 8);
          }
        }
      }
      std::vector<std::int32_t> all;
      for (const auto& step : of_step) all.insert(all.end(), step.begin(), step.end());
      EXPECT_EQ(all, expected) << ranks << " ranks, micro-batch " << micro_batch;
    }
  }
}

TEST(Loader, ResumedOrSoughtIsTheSameAsUncut) {
  CountingSource source(1000);
  const SampleOrder order = SampleOrder::shuffled(9, source.sequences(8));
  const LoaderOptions options = options_of(2, 2, 8);
  std::vector<std::int32_t> uncut;
  Rank whole;
  whole.make_loader(source, order, options);
  for (int i = 0; i < 10; ++i) whole.step(uncut);
  whole.compute().synchronize();

  const std::int64_t step_elems = 2 * options.step_samples() * options.sequence;
  for (const std::int64_t step : {0, 1, 4, 7}) {
    const std::vector<std::int32_t> rest(uncut.begin() + step * step_elems, uncut.end());
    std::vector<std::int32_t> resumed, sought;
    Rank second, third;
    LoaderOptions later = options;
    later.first_sample = step * options.step_samples();
    second.make_loader(source, order, later);
    for (std::int64_t i = step; i < 10; ++i) second.step(resumed);
    second.compute().synchronize();
    EXPECT_EQ(resumed, rest);

    third.make_loader(source, order, options);
    std::vector<std::int32_t> ignored;
    for (int i = 0; i < 3; ++i) third.step(ignored);
    third.loader().seek(later.first_sample);
    for (std::int64_t i = step; i < 10; ++i) third.step(sought);
    third.compute().synchronize();
    EXPECT_EQ(sought, rest);
    EXPECT_TRUE(third.checker().reports().empty());
  }
}

TEST(Loader, SeekStartsEveryEvaluationPassAgain) {
  CountingSource source(500);
  const SampleOrder order = SampleOrder::sequential(source.sequences(4));
  const LoaderOptions options = options_of(1, 3, 4);
  std::vector<std::int32_t> seen, expected;
  Rank rank;
  rank.make_loader(source, order, options);
  rank.loader().seek(0);  // before it started
  for (int pass = 0; pass < 50; ++pass) {
    rank.loader().seek(0);
    const int batches = pass % 5;  // an odd number leaves copies ahead in either slot
    for (int i = 0; i < batches; ++i) rank.step(seen);
    const auto of_pass = expected_steps(order, options, batches);
    expected.insert(expected.end(), of_pass.begin(), of_pass.end());
  }
  rank.compute().synchronize();
  EXPECT_EQ(seen, expected);
  EXPECT_TRUE(rank.checker().reports().empty());
}

// Gate: compute holds a micro-batch of step 0, the first or the last. The copy of step 2, into the same slot, must not
// run; the host goes on.
TEST(LoaderGate, CopyDoesNotOverwriteAStepInUse) {
  CountingSource source(1000);
  const SampleOrder order = SampleOrder::sequential(source.sequences(8));
  const LoaderOptions options = options_of(3, 2, 8);
  for (const std::size_t held : {0u, 2u}) {
    std::vector<std::int32_t> seen;
    Gate gate;
    Rank rank;
    rank.make_loader(source, order, options);
    const StepBatch first = rank.loader().next();
    rank.use(first, seen, &gate, held);
    rank.loader().release(first, rank.compute());
    const StepBatch second = rank.loader().next();
    ASSERT_TRUE(wait_until([&] { return gate.reached() && rank.device().complete(*second.ready); }));
    rank.use(second, seen);
    rank.loader().release(second, rank.compute());
    const StepBatch third = rank.loader().next();  // the host is here while the gate is shut
    ASSERT_EQ(third.slot, first.slot);
    EXPECT_FALSE(rank.device().complete(*third.ready));
    gate.open();
    rank.use(third, seen);
    rank.compute().synchronize();
    EXPECT_EQ(seen, expected_steps(order, options, 3));
    EXPECT_TRUE(rank.checker().reports().empty());
  }
}

// On a device that runs nothing, so that ThreadSanitizer has no true race to report.
TEST(LoaderGate, BothWaitsAreLoadBearing) {
  CountingSource source(1000);
  for (const std::string_view drop : {std::string_view(), kSlotIsFree, kBatchReady.name}) {
    PlanDevice plan;
    CheckedDevice checked(plan, CheckedDevice::Policy::kCollect);
    test::FaultyDevice device(checked);
    device.faults().wait_to_drop = drop;
    const auto compute = device.make_stream("compute", StreamPriority::kNormal);
    const auto copy_in = device.make_stream("copy-in", StreamPriority::kNormal);
    Arena host("host", MemoryKind::kHost);
    Arena memory("inputs", MemoryKind::kDevice);
    Loader loader(device, *copy_in, host, memory, source, SampleOrder::sequential(source.sequences(8)),
                  options_of(2, 2, 8));
    for (int i = 0; i < 4; ++i) {
      const StepBatch batch = loader.plan_batch();
      compute->wait(*batch.ready, kBatchReady);
      for (const MicroBatch& micro : batch.micro_batches) {
        const Tensor reads[] = {micro.tokens, micro.targets};
        compute->launch({.label = {"use"}, .kind = "use", .reads = reads, .writes = {}}, {});
      }
      loader.release(batch, *compute);
    }
    const auto& reports = checked.checker().reports();
    EXPECT_EQ(!reports.empty(), !drop.empty()) << drop;
    if (drop.empty() || reports.empty()) continue;
    EXPECT_EQ(reports.front().hazard, drop == kSlotIsFree ? Hazard::kWriteAfterRead : Hazard::kReadAfterWrite);
    EXPECT_EQ(reports.front().operation, drop == kSlotIsFree ? "train batch h2d" : "use");
    EXPECT_EQ(device.waits_dropped(), 4);
  }
}

// Gate: the copy stream is held. next() returns at once, and no host slot with a copy pending is filled again.
TEST(LoaderGate, PrefetchDoesNotRefillBeforeTheCopyOut) {
  CountingSource counting(1000);
  const SampleOrder order = SampleOrder::sequential(counting.sequences(8));
  LoaderOptions options = options_of(1, 2, 8);
  options.host_slots = 2;
  std::vector<std::int32_t> seen;
  std::atomic<bool> opened{false};
  std::atomic<int> too_early{0};
  Gate gate;
  WatchedSource source(counting, [&](std::int64_t read) {
    if (read >= options.host_slots * options.micro_batch && !opened.load(std::memory_order_relaxed)) ++too_early;
  });
  Rank rank;
  rank.make_loader(source, order, options);
  rank.copy_in().launch({.label = {"gate"}, .kind = "gate", .reads = {}, .writes = {}}, gate.body());
  const StepBatch first = rank.loader().next();
  rank.use(first, seen);
  rank.loader().release(first, rank.compute());
  const StepBatch second = rank.loader().next();
  EXPECT_FALSE(rank.device().complete(*first.ready));
  EXPECT_FALSE(rank.device().complete(*second.ready));
  rank.use(second, seen);
  rank.loader().release(second, rank.compute());
  ASSERT_TRUE(wait_until([&] { return gate.reached(); }));
  opened.store(true, std::memory_order_relaxed);
  gate.open();
  for (int i = 2; i < 10; ++i) rank.step(seen);
  rank.compute().synchronize();
  EXPECT_EQ(too_early, 0);
  EXPECT_EQ(seen, expected_steps(order, options, 10));
}

// A device whose tickets mean the latest record of their event, as CUDA's do.
class LatestTickets final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  Event make_event(std::string_view name) override {
    Event event = ForwardingDevice::make_event(name);
    latest_[&event.state()] = 0;
    return event;
  }
  EventTicket ticket(const Event& event) const override {
    const EventTicket ticket = ForwardingDevice::ticket(event);
    latest_.at(ticket.state).store(ticket.number, std::memory_order_relaxed);
    return ticket;
  }
  void host_wait(EventTicket ticket) override {
    ForwardingDevice::host_wait({ticket.state, latest_.at(ticket.state).load(std::memory_order_relaxed)});
  }

 private:
  mutable std::map<EventState*, std::atomic<std::uint32_t>> latest_;
};

// Gate: compute holds batch 0, and with it the copy of batch 2. Prefetch refills the host slots of batches 0 and 1,
// whose copies have run, and waits before that of batch 2.
TEST(LoaderGate, PrefetchWaitsForTheCopyOfItsSlotOnly) {
  CountingSource counting(1000);
  const LoaderOptions options = options_of(1, 2, 8);
  Gate fourth_batch, use;
  WatchedSource source(counting, [&](std::int64_t read) {
    if (read == 3 * options.micro_batch) fourth_batch.pass();
  });
  const auto cpu = make_cpu_device();
  LatestTickets device(*cpu);
  Arena host("host", MemoryKind::kHost), memory("inputs", MemoryKind::kDevice);
  const auto compute = device.make_stream("compute", StreamPriority::kNormal);
  const auto copy_in = device.make_stream("copy-in", StreamPriority::kNormal);
  Loader loader(device, *copy_in, host, memory, source, SampleOrder::sequential(counting.sequences(8)), options);
  host.allocate(device);
  memory.allocate(device);
  const StepBatch first = loader.next();
  compute->wait(*first.ready, kBatchReady);
  compute->launch({.label = {"use"}, .kind = "gate", .reads = {}, .writes = {}}, use.body());
  const StepBatch second = loader.next();
  loader.release(first, *compute);
  const StepBatch third = loader.next();
  fourth_batch.open();
  EXPECT_TRUE(wait_until([&] { return counting.reads() == 6 * options.micro_batch; })) << counting.reads();
  EXPECT_FALSE(device.complete(*third.ready));
  use.open();
  EXPECT_TRUE(wait_until([&] { return counting.reads() == 7 * options.micro_batch; })) << counting.reads();
  loader.release(second, *compute);
  loader.release(third, *compute);
}

// Gate: batch 1 cannot be read yet. next() gives batch 0 all the same.
TEST(LoaderGate, NextDoesNotWaitForTheBatchAfterIt) {
  CountingSource counting(1000);
  const SampleOrder order = SampleOrder::sequential(counting.sequences(8));
  const LoaderOptions options = options_of(1, 2, 8);
  std::vector<std::int32_t> seen;
  Gate gate;
  WatchedSource source(counting, [&](std::int64_t read) {
    if (read == options.micro_batch) gate.pass();
  });
  Rank rank;
  rank.make_loader(source, order, options);
  rank.step(seen);
  rank.compute().synchronize();
  EXPECT_EQ(seen, expected_steps(order, options, 1));
  ASSERT_TRUE(wait_until([&] { return gate.reached(); }));
  gate.open();
  rank.step(seen);
  rank.compute().synchronize();
  EXPECT_EQ(seen, expected_steps(order, options, 2));
}

TEST(Loader, NextWaitsForASlowSource) {
  CountingSource counting(1000);
  const SampleOrder order = SampleOrder::sequential(counting.sequences(8));
  const LoaderOptions options = options_of(1, 2, 8);
  test::ThrottledSource source(counting, std::chrono::milliseconds(2));
  std::vector<std::int32_t> seen;
  Rank rank;
  rank.make_loader(source, order, options);
  for (int i = 0; i < 20; ++i) rank.step(seen);
  rank.compute().synchronize();
  EXPECT_EQ(seen, expected_steps(order, options, 20));
}

// With host slots full, next() enqueues the copy after its own too, and release() the one after that.
TEST(LoaderGate, CopiesRunAhead) {
  CountingSource source(1000);
  const SampleOrder order = SampleOrder::sequential(source.sequences(8));
  const LoaderOptions options = options_of(1, 2, 8);
  Rank rank;
  rank.make_loader(source, order, options);
  rank.loader().start();
  // The read of the last slot's last row has begun, so the three slots before it are full.
  ASSERT_TRUE(wait_until([&] { return source.reads() == options.host_slots * options.micro_batch; }));
  const StepBatch first = rank.loader().next();
  EXPECT_EQ(rank.checker().operations_checked(), 2);
  rank.loader().release(first, rank.compute());
  EXPECT_EQ(rank.checker().operations_checked(), 3);
}

TEST(Loader, SleepsWhenAllSlotsAreFullAndTakesNoSignals) {
  CountingSource source(1000);
  Rank rank;
  rank.make_loader(source, SampleOrder::sequential(source.sequences(8)), options_of(1, 2, 8));
  rank.loader().start();
  ASSERT_TRUE(wait_until([&] { return source.reads() == 8; }));
  const auto state_of_prefetch = [] {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream status(task.path() / "status");
      std::string text((std::istreambuf_iterator<char>(status)), {});
      if (text.find("Name:\ttrain-prefetch\n") != std::string::npos) return text;
    }
    return std::string();
  };
  EXPECT_TRUE(wait_until([&] { return state_of_prefetch().find("State:\tS") != std::string::npos; }));
  const std::string text = state_of_prefetch();
  const std::uint64_t blocked = std::stoull(text.substr(text.find("SigBlk:\t") + 8, 16), nullptr, 16);
  for (const int signal : {SIGUSR1, SIGINT, SIGTERM}) EXPECT_NE(blocked & (std::uint64_t{1} << (signal - 1)), 0u);
}

TEST(Loader, StopsWhereverThePrefetchThreadIs) {
  CountingSource counting(1000);
  const SampleOrder order = SampleOrder::sequential(counting.sequences(8));
  {
    SCOPED_TRACE("never started");
    Rank rank;
    rank.make_loader(counting, order, options_of(1, 2, 8));
  }
  {
    SCOPED_TRACE("asleep, all slots full");
    Rank rank;
    rank.make_loader(counting, order, options_of(1, 2, 8));
    rank.loader().start();
    ASSERT_TRUE(wait_until([&] { return counting.reads() == 8; }));
    rank.drop_loader();
  }
  {
    SCOPED_TRACE("within a read");
    Gate gate;
    WatchedSource source(counting, [&](std::int64_t) { gate.pass(); });
    Rank rank;
    rank.make_loader(source, order, options_of(1, 2, 8));
    rank.loader().start();
    ASSERT_TRUE(wait_until([&] { return gate.reached(); }));
    std::thread opener([&] { gate.open(); });
    rank.drop_loader();
    opener.join();
  }
  {
    SCOPED_TRACE("waiting for a copy that is held");
    Gate gate;
    Rank rank;
    LoaderOptions options = options_of(1, 2, 8);
    options.host_slots = 1;
    rank.make_loader(counting, order, options);
    rank.copy_in().launch({.label = {"gate"}, .kind = "gate", .reads = {}, .writes = {}}, gate.body());
    const StepBatch batch = rank.loader().next();
    rank.loader().release(batch, rank.compute());
    std::atomic<bool> opened{false};
    std::thread opener([&] {
      opened.store(true, std::memory_order_relaxed);
      gate.open();
    });
    rank.drop_loader();
    EXPECT_TRUE(opened.load(std::memory_order_relaxed));  // the copy reads a host slot: it was waited for
    opener.join();
  }
}

TEST(Loader, AnErrorComesWithItsBatch) {
  CountingSource counting(1000);
  const SampleOrder order = SampleOrder::sequential(counting.sequences(8));
  const LoaderOptions options = options_of(1, 2, 8);
  test::FailingSource source(counting, 5 * 16 + 3);  // in batch 5
  std::vector<std::int32_t> seen;
  Rank rank;
  rank.make_loader(source, order, options);
  for (int i = 0; i < 5; ++i) rank.step(seen);
  for (int again = 0; again < 2; ++again) {
    try {
      rank.loader().next();
      FAIL() << "the bad batch was given out";
    } catch (const IoError& error) {
      EXPECT_NE(std::string(error.what()).find("cannot read token 83"), std::string::npos) << error.what();
    }
  }
  rank.compute().synchronize();
  EXPECT_EQ(seen, expected_steps(order, options, 5));
  // Elsewhere the source is good.
  rank.loader().seek(12);
  seen.clear();
  for (int i = 0; i < 5; ++i) rank.step(seen);
  rank.compute().synchronize();
  LoaderOptions later = options;
  later.first_sample = 12;
  EXPECT_EQ(seen, expected_steps(order, later, 5));
}

TEST(Loader, RefusesIdsBeyondTheVocabulary) {
  CountingSource source(1000, 100);
  LoaderOptions options = options_of(1, 2, 8);
  options.vocab = 99;
  std::vector<std::int32_t> seen;
  Rank rank;
  rank.make_loader(source, SampleOrder::sequential(source.sequences(8)), options);
  // Token 99 is the third input of sequence 12, in batch 6.
  for (int i = 0; i < 6; ++i) rank.step(seen);
  try {
    rank.loader().next();
    FAIL() << "the bad batch was given out";
  } catch (const DataError& error) {
    EXPECT_STREQ(error.what(),
                 "token file \"counting source\": token 99 is id 99, but the vocabulary has 99. Use the tokenizer the "
                 "model is configured for, or a larger vocabulary");
  }
  rank.compute().synchronize();
}

TEST(Loader, ChecksTheLastTargetToo) {
  CountingSource source(17);  // ids 0 to 16; sequence 1 has target 16 at its end
  LoaderOptions options = options_of(1, 2, 8);
  options.vocab = 16;
  Rank rank;
  rank.make_loader(source, SampleOrder::sequential(source.sequences(8)), options);
  EXPECT_THROW(rank.loader().next(), DataError);
}

TEST(Loader, AFailedDeviceEndsIt) {
  CountingSource source(1000);
  std::vector<std::int32_t> seen;
  Rank rank;
  rank.device().faults().failures.push_back({.stream = "copy-in", .from_match = 3, .until_match = 4});
  rank.make_loader(source, SampleOrder::sequential(source.sequences(8)), options_of(1, 2, 8));
  const auto run = [&] {
    for (int i = 0; i < 1000; ++i) rank.step(seen);
  };
  EXPECT_THROW(run(), DeviceError);
}

TEST(Loader, PlansWithoutReading) {
  CountingSource source(1000);
  PlanDevice plan;
  const auto compute = plan.make_stream("compute", StreamPriority::kNormal);
  const auto copy_in = plan.make_stream("copy-in", StreamPriority::kNormal);
  Arena host("host", MemoryKind::kHost);
  Arena memory("inputs", MemoryKind::kDevice);
  const LoaderOptions options = options_of(2, 3, 8);
  {
    Loader loader(plan, *copy_in, host, memory, source, SampleOrder::sequential(source.sequences(8)), options);
    const StepBatch batch = loader.plan_batch();
    ASSERT_EQ(batch.micro_batches.size(), 2u);
    std::set<std::size_t> offsets_bytes;
    for (const MicroBatch& micro : batch.micro_batches) {
      for (const Tensor& part : {micro.tokens, micro.targets}) {
        EXPECT_EQ(part.describe(), "i32[3, 8]");
        offsets_bytes.insert(part.offset_bytes());
      }
    }
    EXPECT_EQ(offsets_bytes, (std::set<std::size_t>{0, 96, 192, 288}));
    compute->wait(*batch.ready, kBatchReady);
    loader.release(batch, *compute);
    // The wait for the slot, the copy, its event; the wait for the batch, the slot's event.
    ASSERT_EQ(plan.recording().entries.size(), 5u);
    EXPECT_EQ(plan.recording().entries[0].hazard, Hazard::kWriteAfterRead);
    EXPECT_EQ(plan.recording().entries[1].name, options.name + " batch h2d");
  }
  EXPECT_EQ(source.reads(), 0);
  EXPECT_EQ(host.size_bytes(), 4u * 512);  // of 384 bytes, in steps of 256
  EXPECT_EQ(memory.size_bytes(), 2u * 512);
}

// However many micro-batches a step has.
TEST(Loader, AStepIsOneCopyAndOneWait) {
  CountingSource source(1000);
  const SampleOrder order = SampleOrder::sequential(source.sequences(8));
  for (const std::int64_t micro_batches : {1, 2, 7}) {
    PlanDevice plan;
    const auto compute = plan.make_stream("compute", StreamPriority::kNormal);
    const auto copy_in = plan.make_stream("copy-in", StreamPriority::kNormal);
    Arena host("host", MemoryKind::kHost);
    Arena memory("inputs", MemoryKind::kDevice);
    Loader loader(plan, *copy_in, host, memory, source, order, options_of(micro_batches, 2, 8));
    const StepBatch batch = loader.plan_batch();
    EXPECT_EQ(static_cast<std::int64_t>(batch.micro_batches.size()), micro_batches);
    compute->wait(*batch.ready, kBatchReady);
    loader.release(batch, *compute);
    const std::vector<RecordedEntry>& recorded = plan.recording().entries;
    ASSERT_EQ(recorded.size(), 5u);
    EXPECT_EQ(recorded[1].writes.at(0).end_bytes - recorded[1].writes.at(0).begin_bytes,
              static_cast<std::size_t>(micro_batches) * 2 * 2 * 8 * 4);
  }
}

TEST(Loader, TwoLoadersShareStreamAndArenas) {
  CountingSource source(1000);
  const SampleOrder order = SampleOrder::shuffled(1, source.sequences(8));
  const auto device = make_cpu_device();
  const auto copy_in = device->make_stream("copy-in", StreamPriority::kNormal);
  const auto compute = device->make_stream("compute", StreamPriority::kNormal);
  Arena host("host", MemoryKind::kHost);
  Arena memory("inputs", MemoryKind::kDevice);
  Loader train(*device, *copy_in, host, memory, source, order, options_of(1, 2, 8));
  LoaderOptions of_val = options_of(1, 4, 8);
  of_val.name = "val";
  Loader val(*device, *copy_in, host, memory, source, order, of_val);
  host.allocate(*device);
  memory.allocate(*device);
  const std::size_t bytes_before = device->allocated_bytes();
  std::vector<std::int32_t> seen, expected;
  for (int i = 0; i < 40; ++i) {
    const bool evaluates = i % 3 == 0;
    Loader& loader = evaluates ? val : train;
    if (evaluates) val.seek(0);
    const StepBatch batch = loader.next();
    compute->wait(*batch.ready, kBatchReady);
    compute->launch({.label = {"use"}, .kind = "use", .reads = {}, .writes = {}},
                    [&seen, micro = batch.micro_batches.front()](NativeStream) { append(seen, micro); });
    loader.release(batch, *compute);
    if (evaluates) {
      append_expected(expected, order, of_val, 0);
    } else {
      append_expected(expected, order, options_of(1, 2, 8), 2 * (i - i / 3 - 1));
    }
  }
  compute->synchronize();
  EXPECT_EQ(seen, expected);
  EXPECT_EQ(device->allocated_bytes(), bytes_before);
}

TEST(RequireSequences, NeedsOneWholeSequenceAndItsLastTarget) {
  EXPECT_EQ(require_sequences(CountingSource(9), 8), 1);
  EXPECT_EQ(require_sequences(CountingSource(16), 8), 1);
  EXPECT_EQ(require_sequences(CountingSource(17), 8), 2);
  try {
    require_sequences(CountingSource(8), 8);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_STREQ(
        error.what(),
        "token file \"counting source\": expected at least 9 tokens (one sequence and the target of its last), "
        "found 8. Use a longer file or a smaller train.sequence");
  }
}

}  // namespace
}  // namespace strake::data
