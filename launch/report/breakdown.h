// StepBreakdown: step times of all ranks, gathered a step late, as tables for people.
// Threads: the training thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "launch/train/step_account.h"
#include "launch/train/trainer.h"

namespace strake::launch {

// One rank's numbers of one step as they travel: milliseconds.
struct RankStep {
  double wall_ms = 0;
  std::array<double, kStepClasses> class_ms{};
  double comm_busy_ms = 0;
  double exposed_at_end_ms = 0;  // of it, by structure: what is final only when backward ends

  static constexpr std::size_t kValues = kStepClasses + 3;
  void append_to(std::vector<double>& values) const;
  static RankStep from(std::span<const double> values);
  double of(StepClass step_class) const { return class_ms[static_cast<std::size_t>(step_class)]; }
};

RankStep rank_step(const StepReport& report);

class StepBreakdown {
 public:
  explicit StepBreakdown(int ranks) : sums_(static_cast<std::size_t>(ranks)) {}

  void add(std::span<const RankStep> ranks);
  std::int64_t steps() const { return steps_; }
  void clear();

  // Mean over the steps added, of `rank`; over ranks, too.
  RankStep mean(int rank) const;
  RankStep mean() const;
  // The rank that computes longest (forward, backward, optimizer, and what delays them: data, H2D, host), and by what
  // factor over the mean of ranks.
  struct Slowest {
    int rank;
    double factor;
    StepClass step_class;  // whose excess over the mean is largest
  };
  Slowest slowest() const;

  // A row a rank, then min, mean, max over ranks, then what is hidden and what is unexplained. At most 80
  // columns.
  std::string table() const;

 private:
  std::vector<RankStep> means() const;  // of each rank

  std::vector<RankStep> sums_;
  std::int64_t steps_ = 0;
};

}  // namespace strake::launch
