#include "tests/faults/life.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <new>
#include <random>
#include <vector>

#include "checkpoint/directory.h"
#include "runtime/base/check.h"
#include "tests/checkpoint/synthetic_run.h"

namespace strake::test {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpointer;
using Clock = std::chrono::steady_clock;

constexpr std::array kPlaces = {"start",         "ckpt.preflight",    "ckpt.snap.begin",       "ckpt.snap.mid",
                                "ckpt.snap.end", "ckpt.fsync.before", "ckpt.fsync.after",      "ckpt.report",
                                "ckpt.vote",     "ckpt.cover",        "ckpt.manifest.renamed", "ckpt.manifest.synced",
                                "ckpt.rename",   "ckpt.durable",      "ckpt.latest",           "ckpt.prune.before",
                                "ckpt.prune.mid"};
constexpr std::string_view kWrite = "ckpt.write.";
constexpr std::int64_t kFirstWrite = 100;

class Places final : public checkpoint::Failpoints {
 public:
  Places(Board& board, int rank) : board_(board), rank_(static_cast<std::size_t>(rank)) {}
  void hit(std::string_view name) override {
    const LifePlan& plan = board_.plan;
    board_.at[rank_] = place_number(name);
    if (static_cast<int>(rank_) != plan.killed_rank || board_.at[rank_] != plan.killed_place) return;
    if (++board_.times == plan.killed_time) ::kill(::getpid(), SIGKILL);
  }

 private:
  Board& board_;
  const std::size_t rank_;
};

// What the bytes are a function of.
std::int64_t content(std::int64_t step, std::int64_t attempt) { return step + 1'000'000 * attempt; }

checkpoint::Meta meta_of(std::int64_t step, std::int64_t attempt) {
  checkpoint::Meta meta = meta_at(step);
  meta.attempt = attempt;
  meta.data_cursor += fmt::format(" of attempt {}", attempt);
  return meta;
}

std::vector<SyntheticTensor> tensors_of(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  constexpr DType kTypes[] = {DType::kF32, DType::kF32, DType::kBF16, DType::kF64};
  const int sharing = static_cast<int>(random() % 3);  // replicated, mixed, sharded
  std::vector<SyntheticTensor> tensors{{"count", DType::kI64, {1}},
                                       {"param/base", DType::kF32, {96, 64}, sharing == 2}};
  for (std::uint64_t i = 0, n = 2 + random() % 5; i < n; ++i) {
    const auto columns = static_cast<std::int64_t>(1 + random() % 60);
    const auto rows = static_cast<std::int64_t>(kMaxRanks + random() % (20'000 / static_cast<std::uint64_t>(columns)));
    tensors.push_back({fmt::format("param/{}", i),
                       kTypes[random() % 4],
                       {rows, columns},
                       sharing == 2 || (sharing == 1 && random() % 2 == 0)});
  }
  return tensors;
}

// Committed names stand for whole checkpoints, and there are as many as retention promises.
void inspect(Board& board, Files& files, const fs::path& folder) {
  if (!files.exists(folder)) return;
  std::int64_t whole = 0;
  for (const checkpoint::CheckpointSummary& found : checkpoint::list_checkpoints(files, folder)) {
    try {
      checkpoint::verify_checkpoint(files, found.path);
      ++whole;
    } catch (const Error& error) {
      if (!board.plan.may_set_aside) board.say(true, fmt::format("a committed name stands for less: {}", error.what()));
    }
  }
  const std::int64_t promised = std::min<std::int64_t>(board.plan.keep, board.plan.reported);
  if (whole < promised && !board.plan.may_set_aside)
    board.say(true, fmt::format("{} whole checkpoints are left, {} are promised", whole, promised));
  if (files.exists(folder / "LATEST")) {
    const std::string latest = read_file(files, folder / "LATEST", 100);
    if (latest.empty() || latest.back() != '\n' || !checkpoint::step_of(latest.substr(0, latest.size() - 1)))
      board.say(false, fmt::format("LATEST is torn: '{}'", latest));
  }
}

void expect_no_leftovers(Board& board, Files& files, const fs::path& folder) {
  for (const std::string& name : files.list(folder)) {
    const bool known = checkpoint::step_of(name) || name == "LATEST" || name == "LATEST.tmp" || name == "lock" ||
                       (board.plan.may_set_aside && name.starts_with(".bad-step-"));
    if (!known) board.say(false, fmt::format("left over behind the start: {}", name));
  }
}

class Life {
 public:
  Life(Board& board, int rank, comm::Control& control, Files& files)
      : board_(board),
        plan_(board.plan),
        rank_(rank),
        control_(control),
        files_(files),
        places_(board, rank),
        state_(rank, plan_.ranks, tensors_of(plan_.state_seed)) {}

  void start() {
    const fs::path folder = plan_.folder;
    if (rank_ == 0) inspect(board_, files_, folder);
    checkpoint::Options options = options_in(folder);
    options.keep = plan_.keep;
    options.attempt = plan_.attempt;
    options.write.chunk_bytes = plan_.chunk_bytes;
    options.strategy = plan_.strategy;
    options.failpoints = &places_;
    checkpointer_ = state_.make_checkpointer(files_, control_, options);
    if (rank_ == 0) expect_no_leftovers(board_, files_, folder);
    constexpr std::int64_t kNothing = 999'999;
    state_.advance_to(kNothing);
    state_.compute().synchronize();
    const auto meta = checkpointer_->load_newest(model_text());
    const std::int64_t step = meta ? meta->step : -1;
    if (!state_.holds(meta ? content(step, meta->attempt) : kNothing))
      board_.say(true, fmt::format("rank {} took other bytes for the state of step {}", rank_, step));
    if (meta) {
      checkpoint::Meta expected = meta_of(step, meta->attempt);
      expected.world_size = meta->world_size;
      if (*meta != expected)
        board_.say(true, fmt::format("rank {} took other words for those of step {}", rank_, step));
    }
    if (step < plan_.least)
      board_.say(true, fmt::format("step {} was reported durable, step {} is loaded", plan_.least, step));
    if (step > plan_.most) board_.say(true, fmt::format("step {} was never saved", step));
    step_ = std::max<std::int64_t>(step, 0);
    if (rank_ == 0) board_.loaded = step;
    control_.barrier();
  }

  void train() {
    const std::int64_t end = step_ + plan_.saves * plan_.interval;
    while (step_ < end) {
      ++step_;
      board_.step[static_cast<std::size_t>(rank_)] = step_;
      // One step behind, as a trainer reads the step before; so the queue of the stream stays short.
      state_.compute().synchronize();
      timed([&] { state_.advance_behind(*checkpointer_, content(step_, plan_.attempt)); });
      checkpointer_->check();
      if (checkpointer_->in_flight() && all_ended()) finish();
      if (step_ % plan_.interval != 0) continue;
      if (checkpointer_->in_flight()) finish();
      save();
    }
    if (checkpointer_->in_flight()) finish();
  }

 private:
  bool all_ended() {
    const std::vector<std::string> ended = control_.all_gather(checkpointer_->ended() ? "1" : "0");
    return std::all_of(ended.begin(), ended.end(), [](const std::string& text) { return text == "1"; });
  }
  void save() {
    if (rank_ == 0) board_.begun = step_;
    saving_ = step_;
    begun_ = Clock::now();
    timed([&] { state_.begin_here(*checkpointer_, meta_of(step_, plan_.attempt)); });
    if (checkpointer_->holds() == checkpoint::Holds::kTraining) finish();
  }
  void finish() {
    try {
      checkpointer_->finish();
    } catch (const IoError&) {
      if (!plan_.storage_may_fail) throw;
      if (rank_ == 0) ++board_.failed_saves;
      return;
    }
    if (rank_ == 0) {
      ++board_.reported;
      board_.durable = saving_;
      board_.save_us = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begun_).count();
    }
  }
  template <typename Call>
  void timed(Call call) {
    const auto begin = Clock::now();
    call();
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count();
    if (rank_ == 0 && us > board_.blocked_us) board_.blocked_us = us;
  }

  Board& board_;
  const LifePlan plan_;
  const int rank_;
  comm::Control& control_;
  Files& files_;
  Places places_;
  SyntheticRank state_;
  std::unique_ptr<Checkpointer> checkpointer_;
  std::int64_t step_ = 0, saving_ = -1;
  Clock::time_point begun_;
};

}  // namespace

void Board::say(bool is_silent, std::string_view text) {
  int nobody = 0;
  if (!said.compare_exchange_strong(nobody, 1)) return;
  silent = is_silent;
  std::memcpy(trouble, text.data(), std::min(text.size(), sizeof(trouble) - 1));
  said = 2;
}

SharedBoard::SharedBoard(const fs::path& file, bool make) {
  int descriptor = -1;
  if (!file.empty()) {
    descriptor = ::open(file.c_str(), O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0600);
    STRAKE_CHECK(descriptor >= 0 && (!make || ::ftruncate(descriptor, sizeof(Board)) == 0),
                 "cannot use " + file.string());
  }
  void* memory = ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE,
                        MAP_SHARED | (descriptor < 0 ? MAP_ANONYMOUS : 0), descriptor, 0);
  STRAKE_CHECK(memory != MAP_FAILED, "no shared memory");
  if (descriptor >= 0) ::close(descriptor);
  board_ = make ? new (memory) Board : static_cast<Board*>(memory);
}

SharedBoard::~SharedBoard() { ::munmap(board_, sizeof(Board)); }

std::int64_t place_number(std::string_view name) {
  if (name.starts_with(kWrite)) return kFirstWrite + std::stoll(std::string(name.substr(kWrite.size())));
  const auto found = std::find(kPlaces.begin(), kPlaces.end(), name);
  STRAKE_CHECK(found != kPlaces.end(), "the place '" + std::string(name) + "' is not known here");
  return found - kPlaces.begin();
}

std::string place_name(std::int64_t number) {
  if (number >= kFirstWrite) return fmt::format("{}{}", kWrite, number - kFirstWrite);
  return kPlaces[static_cast<std::size_t>(number)];
}

int live(Board& board, int rank, comm::Control& control, Files& files, const std::function<void()>& on_loaded) {
  board.process[static_cast<std::size_t>(rank)] = ::getpid();
  try {
    Life life(board, rank, control, files);
    life.start();
    if (on_loaded) on_loaded();
    life.train();
    return 0;
  } catch (const Error& error) {
    // A peer was killed: that is what most of this is about.
    if (error.exit_code() != ExitCode::kPeerOrDeviceLost) board.say(false, error.what());
    return static_cast<int>(error.exit_code());
  }
}

}  // namespace strake::test
