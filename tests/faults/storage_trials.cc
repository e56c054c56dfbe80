// Disks that fail, fill up, stand still or are slow; two jobs in one folder; many saves.
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "checkpoint/checkpointer.h"
#include "runtime/io/forwarding_files.h"
#include "tests/checkpoint/counted_allocation.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/faults/life_chain.h"
#include "tests/faults/process_ranks.h"
#include "tests/support/faulty_files.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

void sleep_s(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// Stands still in every sync of a file, and writes at a rate.
class SlowFiles final : public ForwardingFiles {
 public:
  SlowFiles(Files& inner, double sync_s, double bytes_per_s)
      : ForwardingFiles(inner), sync_s_(sync_s), bytes_per_s_(bytes_per_s) {}
  std::unique_ptr<File> open(const fs::path& path, OpenMode mode) override {
    auto file = ForwardingFiles::open(path, mode);
    if (path.extension() != ".h5" || !slow) return file;
    return std::make_unique<SlowFile>(*this, std::move(file));
  }
  bool slow = false;

 private:
  class SlowFile final : public ForwardingFile {
   public:
    SlowFile(SlowFiles& owner, std::unique_ptr<File> inner) : ForwardingFile(std::move(inner)), owner_(owner) {}
    void sync() override {
      sleep_s(owner_.sync_s_);
      ForwardingFile::sync();
    }

   protected:
    std::ptrdiff_t write_some(std::span<const std::byte> bytes, std::uint64_t offset) override {
      if (owner_.bytes_per_s_ > 0) sleep_s(static_cast<double>(bytes.size()) / owner_.bytes_per_s_);
      return ForwardingFile::write_some(bytes, offset);
    }

   private:
    SlowFiles& owner_;
  };
  const double sync_s_, bytes_per_s_;
};

std::size_t entries_in(const char* folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

std::int64_t resident_bytes() {
  std::int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

}  // namespace

void fail_a_call(std::uint64_t seed, const TrialOptions&, const Report& report) {
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  LifeChain chain("storage", seed, scratch.path() / "ckpt", report);
  chain.base().storage_may_fail = true;
  const SharedBoard board;
  board->plan = chain.next_plan();
  const std::size_t kind = chain.below(6);
  constexpr std::array kKinds = {"EIO", "ENOSPC", "EDQUOT", "disk full", "short writes", "signals"};
  constexpr std::array kErrors = {EIO, ENOSPC, EDQUOT, ENOSPC, 0, 0};
  const auto call = static_cast<std::int64_t>(1 + chain.below(80));
  const int victim = static_cast<int>(chain.below(static_cast<std::uint64_t>(board->plan.ranks)));
  ProcessRanks ranks(board->plan.ranks, [&](int rank, comm::Control& control) {
    PosixFiles posix;
    FaultyFiles files(posix);
    return live(*board, rank, control, files, [&] {
      if (rank != victim) return;
      files.restart_count();
      if (kind < 3) files.fail_at(call, kErrors[kind]);
      if (kind == 3) files.fill_disk_at(call, kErrors[kind]);
      if (kind == 4) files.shorten_writes();
      if (kind == 5) files.interrupt();
    });
  });
  for (const ProcessEnd& end : ranks.wait()) {
    if (end.code != 0 || end.signal != 0)
      board->say(false, fmt::format("training did not go on: a rank ended with {}, signal {}", end.code, end.signal));
  }
  const std::int64_t failed = board->failed_saves;
  if (kind < 3 && failed > 1) board->say(false, fmt::format("one failed call has cost {} checkpoints", failed));
  if (kind > 3 && failed > 0) board->say(false, "what is no error has cost a checkpoint");
  chain.ended(*board, true, {{"error", kKinds[kind]}, {"call", call}, {"victim", victim}, {"failed_saves", failed}});
  const SharedBoard next;
  next->plan = chain.looking_plan();
  PosixFiles files;
  ProcessRanks again(next->plan.ranks,
                     [&](int rank, comm::Control& control) { return live(*next, rank, control, files); });
  again.wait();
  chain.ended(*next, false);
  chain.expect_nothing_open();
}

// One save, by a disk ten or a hundred times too slow for it, or that stands still in a sync. Training goes on.
void slow_the_disk(std::uint64_t seed, const TrialOptions& options, const Report& report) {
  const std::size_t kind = seed % 3;
  constexpr std::array kKinds = {"10x", "100x", "freeze"};
  const auto strategy = static_cast<checkpoint::StrategyKind>(1 + seed / 3 % 3);
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  Trial trial{.kind = "slow_disk", .seed = seed, .facts = {{"disk", kKinds[kind]}, {"strategy", name_of(strategy)}}};
  struct Times {
    double quick_s = 0, slow_s = 0, blocked_s = 0;
    std::int64_t steps = 0;
    bool exact = true;
  };
  // One process a trial, as nothing else may be in it when trials fork.
  int descriptors[2];
  if (::pipe(descriptors) != 0) check_failed("pipe", "no pipe");
  ProcessRanks process(1, [&](int, comm::Control& control) {
    Times times;
    PosixFiles posix;
    SyntheticRank state(0, 1);
    checkpoint::Options at = options_in(scratch.path() / "ckpt");
    at.strategy = strategy;
    constexpr double kQuickBytesPerS = 40e6;  // the synthetic state in a millisecond
    SlowFiles files(posix, kind == 2 ? options.freeze_s : 0.0,
                    kind == 2 ? 0.0 : kQuickBytesPerS / (kind == 0 ? 10 : 100));
    auto checkpointer = state.make_checkpointer(files, control, at);
    const auto save = [&](std::int64_t first) {
      state.advance_behind(*checkpointer, first);
      state.compute().synchronize();
      const auto begun = Clock::now();
      state.begin_here(*checkpointer, meta_at(first));
      times.blocked_s = std::max(times.blocked_s, seconds_since(begun));
      std::int64_t step = first;
      do {
        const auto stepped = Clock::now();
        state.advance_behind(*checkpointer, ++step);
        state.compute().synchronize();
        times.blocked_s = std::max(times.blocked_s, seconds_since(stepped));
        if (step > first + 20) sleep_s(0.001);
        ++times.steps;
      } while (!checkpointer->ended());
      checkpointer->finish();
      times.exact = times.exact && state.holds(step);
      return seconds_since(begun);
    };
    times.quick_s = save(1'000);
    files.slow = true;
    times.steps = 0;
    times.slow_s = save(1'000'000);
    checkpointer.reset();
    return ::write(descriptors[1], &times, sizeof(times)) == sizeof(times) ? 0 : 1;
  });
  process.wait();
  Times times;
  ::close(descriptors[1]);
  if (::read(descriptors[0], &times, sizeof(times)) != sizeof(times)) trial.wrong = "the process died";
  ::close(descriptors[0]);
  trial.facts["blocked_ms"] = times.blocked_s * 1e3;
  trial.facts["durable_ms"] = times.slow_s * 1e3;
  trial.facts["steps_meanwhile"] = times.steps;
  trial.silent = !times.exact;
  if (!times.exact) trial.wrong = "the state of training was changed";
  // The save took the time of the disk, and training none of it.
  if (kind == 2 && times.blocked_s > options.freeze_s / 2) trial.wrong = "training waited for the disk";
  report(trial);
}

void start_two_jobs(std::uint64_t seed, const TrialOptions&, const Report& report) {
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  LifeChain chain("two_jobs", seed, scratch.path() / "ckpt", report);
  PosixFiles files;
  const SharedBoard boards[2];
  for (const SharedBoard& board : boards) {
    board->plan = chain.next_plan();
    board->plan.saves = 1'000'000;     // until it is killed
    board->plan.may_set_aside = true;  // it may look at the folder while the other works there
    board->plan.most = 1'000'000'000;
  }
  std::optional<ProcessRanks> jobs[2];
  const auto start = [&](std::size_t job) {
    jobs[job].emplace(boards[job]->plan.ranks,
                      [&, job](int rank, comm::Control& control) { return live(*boards[job], rank, control, files); });
  };
  const std::size_t first = chain.below(2);
  start(first);
  std::this_thread::sleep_for(std::chrono::microseconds(chain.below(2) == 0 ? 0 : chain.below(4000)));
  start(1 - first);
  Trial trial{.kind = "two_jobs", .seed = seed};
  std::size_t refused = 2;
  for (int n = 0; n < 100'000 && refused == 2; ++n) {
    for (const std::size_t job : {std::size_t{0}, std::size_t{1}})
      if (jobs[job]->ended()) refused = job;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  if (refused == 2) {
    trial.wrong = "both work in one folder";
    trial.silent = true;
  } else {
    const std::size_t winner = 1 - refused;
    for (const ProcessEnd& end : jobs[refused]->wait()) {
      if (end.code != static_cast<int>(ExitCode::kConfig))
        trial.wrong = fmt::format("the refused one ended with {}: {}", end.code, boards[refused]->what());
    }
    const std::string holder = fmt::format("process {} on host", boards[winner]->process[0].load());
    if (boards[refused]->what().find(holder) == std::string::npos)
      trial.wrong = fmt::format("its message does not name {}: {}", holder, boards[refused]->what());
    std::this_thread::sleep_for(std::chrono::microseconds(chain.below(5000)));
    jobs[winner]->kill_all();
    jobs[winner]->wait();
    // The lock of the dead is no hindrance, and what it has kept is there.
    const SharedBoard next;
    next->plan = chain.looking_plan();
    next->plan.least = boards[winner]->durable;
    next->plan.most = 1'000'000'000;
    ProcessRanks again(next->plan.ranks,
                       [&](int rank, comm::Control& control) { return live(*next, rank, control, files); });
    for (const ProcessEnd& end : again.wait()) {
      if (end.code != 0 || next->said != 0)
        trial.wrong = fmt::format("the start behind both ended with {}: {}", end.code, next->what());
    }
    trial.silent = next->silent;
    trial.facts = {{"ranks", boards[winner]->plan.ranks},
                   {"won", winner == first ? "the first" : "the second"},
                   {"loaded", next->loaded.load()},
                   {"durable", boards[winner]->durable.load()}};
  }
  report(trial);
}

void save_two_hundred(std::uint64_t seed, const TrialOptions&, const Report& report) {
  constexpr std::int64_t kSaves = 200;
  constexpr int kRanks = 2;
  struct Kept {
    std::int64_t heap_bytes, resident_bytes, descriptors, threads;
  };
  const auto strategy = static_cast<checkpoint::StrategyKind>(seed % 4);
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  int descriptors[2];
  if (::pipe(descriptors) != 0) check_failed("pipe", "no pipe");
  ProcessRanks processes(kRanks, [&](int rank, comm::Control& control) {
    PosixFiles files;
    SyntheticRank state(rank, kRanks);
    checkpoint::Options options = options_in(scratch.path() / "ckpt");
    options.strategy = strategy;
    auto checkpointer = state.make_checkpointer(files, control, options);
    Kept kept[2] = {};
    for (std::int64_t save = 1; save <= kSaves; ++save) {
      state.save(*checkpointer, 10'000 + save);
      if (save != 5 && save != kSaves) continue;
      state.holds(0);  // waits for the streams, which free what they have done
      control.barrier();
      kept[save == 5 ? 0 : 1] = {static_cast<std::int64_t>(live_bytes()), resident_bytes(),
                                 static_cast<std::int64_t>(entries_in("/proc/self/fd")),
                                 static_cast<std::int64_t>(entries_in("/proc/self/task"))};
    }
    return ::write(descriptors[1], kept, sizeof(kept)) == sizeof(kept) ? 0 : 1;
  });
  processes.wait();
  ::close(descriptors[1]);
  Trial trial{.kind = "growth", .seed = seed, .facts = {{"strategy", name_of(strategy)}, {"saves", kSaves}}};
  for (int rank = 0; rank < kRanks; ++rank) {
    Kept kept[2];
    if (::read(descriptors[0], kept, sizeof(kept)) != sizeof(kept)) {
      trial.wrong = "a process died";
      break;
    }
    const auto grown = [&](const char* what, std::int64_t Kept::*member, std::int64_t allowed) {
      const std::int64_t growth = kept[1].*member - kept[0].*member;
      trial.facts[what].push_back(growth);
      if (growth > allowed) trial.wrong = fmt::format("{} grew by {}", what, growth);
    };
    grown("heap_bytes", &Kept::heap_bytes, 0);
    grown("resident_bytes", &Kept::resident_bytes, 1 << 20);  // pages of freed memory are the allocator's affair
    grown("descriptors", &Kept::descriptors, 0);
    grown("threads", &Kept::threads, 0);
  }
  ::close(descriptors[0]);
  report(trial);
}

}  // namespace strake::test
