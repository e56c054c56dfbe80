// Life: one start of a synthetic job that saves again and again, and says on a board in shared memory what it has found
// and done, so that this is known when it was killed.
//
// Every byte of the state at step k of attempt a is a function of both, so that nothing wrong can pass for right: not
// the state of another step, and not a part of it from an attempt that died. Threads: live() on the training thread of
// each rank. Errors: what it must not meet is said on the board.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "checkpoint/failpoint.h"
#include "checkpoint/strategy.h"
#include "comm/control.h"
#include "runtime/io/files.h"

namespace strake::test {

inline constexpr int kMaxRanks = 4;

// How a life is led. Plain bytes: it travels on the board.
struct LifePlan {
  char folder[200] = {};
  int ranks = 1;
  checkpoint::StrategyKind strategy = checkpoint::StrategyKind::kSync;
  int keep = 2;
  std::int64_t attempt = 1;
  std::int64_t saves = 5;     // 0: it only looks what is there
  std::int64_t interval = 3;  // steps between them
  std::uint64_t chunk_bytes = 4096;
  std::uint64_t state_seed = 1;  // of names, types and sizes: the same over all lives of a folder
  // What the start must find: at least the newest step that was reported durable, at most the newest that was begun.
  std::int64_t least = -1, most = -1;
  std::int64_t reported = 0;      // how many were reported durable so far
  bool may_set_aside = false;     // somebody has damaged checkpoints on purpose
  bool storage_may_fail = false;  // a save that throws IoError is left out
  int killed_rank = -1;           // when it passes a place (place_number) for the time `killed_time`, from 1
  std::int64_t killed_place = 0, killed_time = 1;
};

// Of one life. Survives its ranks.
struct Board {
  LifePlan plan;
  std::atomic<std::int64_t> loaded{-2};  // -2: not yet; -1: there was none; else the step
  std::atomic<std::int64_t> begun{-1}, durable{-1}, reported{0}, failed_saves{0};
  std::atomic<std::int64_t> step[kMaxRanks]{}, at[kMaxRanks]{};  // at: the failpoint that was passed last
  std::atomic<std::int64_t> times{0};                            // that killed_rank has passed killed_place
  std::atomic<pid_t> process[kMaxRanks]{};
  std::atomic<std::int64_t> save_us{0};     // of the newest save, from begin to durable
  std::atomic<std::int64_t> blocked_us{0};  // the longest that a call of the training thread took beside a save
  std::atomic<int> said{0};         // by whom the trouble below was said: 0 nobody yet, 1 somebody, 2 it is there
  std::atomic<bool> silent{false};  // wrong bytes were taken for right, or durable ones were lost
  char trouble[500] = {};

  // The first one counts.
  void say(bool is_silent, std::string_view text);
  std::string what() const { return said == 2 ? trouble : ""; }
};

// Memory that forked processes share; of a file, if a path is given, which is made or opened.
class SharedBoard {
 public:
  explicit SharedBoard(const std::filesystem::path& file = {}, bool make = true);
  ~SharedBoard();
  SharedBoard(const SharedBoard&) = delete;
  SharedBoard& operator=(const SharedBoard&) = delete;
  Board& operator*() const { return *board_; }
  Board* operator->() const { return board_; }

 private:
  Board* board_;
};

// Names of failpoints as numbers, which a killed process cannot leave half written.
std::int64_t place_number(std::string_view name);
std::string place_name(std::int64_t number);

// Leads the life on the board's plan and returns the process's exit code. `on_loaded`, if given, is called by every
// rank between the start and training.
int live(Board& board, int rank, comm::Control& control, Files& files, const std::function<void()>& on_loaded = {});

}  // namespace strake::test
