// RankWatch: a thread beside the training thread of a rank, for what that thread cannot do while it waits.
//
// - **Hangs.** The training thread says what it waits for (enter()). If it stands still for longer than the deadline,
//   the watch asks the other ranks where they are, says what is waited for since when and who has not come, and
//   ends the job with exit code 15. Time in which this process itself did not run (SIGSTOP, a laptop's lid) does not
//   count.
// - **Signals.** A request to stop is acknowledged at once. SIGTERM becomes such a request if all ranks answer within
//   kTerminationLimit; else a peer has died, no agreed checkpoint is possible, and the rank ends with exit code 16.
//
// Threads: the training thread makes, destroys and calls it, but for asked_to_stop(), which any may call.
// Its mutex is shared with the watch's own thread only, which touches no device: it orders nothing between streams.
// Errors: none of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/roll_call.h"
#include "launch/config.h"
#include "launch/job/signals.h"
#include "runtime/base/log.h"

namespace strake::launch {

// How long a section may take, in deadlines.
enum class Patience : int {
  kStep = 1,
  kLong = 4,  // start-up, checkpoints, evaluation
};

// run.hang_s as a deadline.
std::chrono::milliseconds hang_limit(const Config& config);

class RankWatch {
 public:
  static constexpr std::chrono::milliseconds kTerminationLimit{200};
  static constexpr std::chrono::milliseconds kHangAnswerLimit{2000};

  struct Options {
    int rank = 0;
    int ranks = 1;
    std::function<void(int exit_code)> end_job;  // from the watch's thread; must not return
    std::chrono::milliseconds poll = std::chrono::milliseconds(20);
    std::chrono::milliseconds limit{0};  // the first deadline; zero: none
    StopSignals::After after = StopSignals::After::kRestore;
  };
  explicit RankWatch(Options options);
  ~RankWatch();
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;

  // While this lives, the watch talks to the other ranks. Not needed by a rank that is alone.
  class [[nodiscard]] Peers {
   public:
    Peers(RankWatch& watch, std::unique_ptr<comm::RollCall> roll_call);
    ~Peers();
    Peers(const Peers&) = delete;
    Peers& operator=(const Peers&) = delete;

   private:
    RankWatch& watch_;
  };
  // While this lives, what the watch says for people goes to this log: a run's, which draws a bar below it.
  class [[nodiscard]] Voice {
   public:
    Voice(RankWatch& watch, const Logger& log);
    ~Voice();
    Voice(const Voice&) = delete;
    Voice& operator=(const Voice&) = delete;

   private:
    RankWatch& watch_;
  };
  // The deadline; zero: none.
  void set_limit(std::chrono::milliseconds limit);
  // While this lives, a verdict looks at this communicator's collectives, and aborts them.
  class [[nodiscard]] Communication {
   public:
    Communication(RankWatch& watch, comm::Communicator& communicator);
    ~Communication();
    Communication(const Communication&) = delete;
    Communication& operator=(const Communication&) = delete;

   private:
    RankWatch& watch_;
  };
  // For acknowledgements: the step being computed, from 1; 0: none yet; and what is durable already.
  void at_step(std::int64_t step);
  void durable(std::int64_t step);
  // The last step is done: what is left is to end.
  void ending();
  // The ranks have agreed to stop behind `step`, because of `signal` on `rank`: said now, if it was not yet.
  void stops_behind(std::int64_t step, int signal, int rank);
  // This rank has said why it ends the job: the others need not, when that reaches them. Before Control::abort.
  void said_why();

  // From now until the section ends the training thread is at `what`. The innermost section counts. Entering and
  // leaving one is progress.
  class [[nodiscard]] Section {
   public:
    Section(Section&& other) noexcept;
    Section& operator=(Section&&) = delete;
    ~Section();

   private:
    friend class RankWatch;
    Section(RankWatch& watch, std::string what, Patience patience);
    RankWatch* watch_;
    std::string outer_what_;
    Patience outer_patience_;
  };
  Section enter(std::string what, Patience patience = Patience::kStep) { return {*this, std::move(what), patience}; }

  // The signal that asks this rank to stop, 0: none.
  int asked_to_stop() const { return signals_.requested(); }

 private:
  struct Impl;
  StopSignals signals_;  // before the thread, which inherits the mask
  std::unique_ptr<Impl> impl_;
};

}  // namespace strake::launch
