// TimeLeft: how long a run still takes, from what its steps, evaluations and checkpoints took so far.
//
// The steps to come each take as long as the recent ones (RecentMean), evaluation and checkpoint left out; evaluations
// and checkpoints to come each take the mean of those seen in this attempt, nothing before the first. The first step
// warms up and counts only while it is the only one.
// Threads: a value. Errors: none.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace strake::launch {

using Seconds = std::chrono::duration<double>;

// Of numbers that come one after another: one counts e-fold less every kMemory later ones.
class RecentMean {
 public:
  static constexpr double kMemory = 20;

  void add(double value);
  // REQUIRES: add() was called.
  double value() const { return sum_ / weight_; }

 private:
  double sum_ = 0, weight_ = 0;
};

// What a run still has to do, and how often.
struct Work {
  std::int64_t last_step = 0;  // after which it ends
  bool evaluates = false;      // always after the last step
  std::int64_t eval_every = 0;
  std::int64_t checkpoint_every = 0;                // steps; 0: not by steps
  std::optional<Seconds> checkpoint_interval = {};  // by time
  bool checkpoint_at_end = false;
};

class TimeLeft {
 public:
  explicit TimeLeft(const Work& work) : work_(work) {}

  void add_step(Seconds training);  // without its evaluation and checkpoint
  void add_evaluation(Seconds time) { evaluations_.add(time); }
  void add_checkpoint(Seconds time) { checkpoints_.add(time); }
  // Behind `step`, its own evaluation and checkpoint done; nullopt before the first step.
  std::optional<Seconds> after(std::int64_t step) const;

 private:
  struct Mean {
    Seconds sum{0};
    std::int64_t seen = 0;
    void add(Seconds time) {
      sum += time;
      ++seen;
    }
    Seconds each() const { return seen == 0 ? Seconds(0) : sum / static_cast<double>(seen); }
  };

  Work work_;
  RecentMean training_s_;
  std::int64_t steps_ = 0;
  Mean evaluations_, checkpoints_;
};

}  // namespace strake::launch
