// Progress: how far a run is, as one line for people: a bar for a terminal, a line for a log. And the short forms of
// numbers that all its texts share.
// Threads: values, pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "launch/report/time_left.h"
#include "runtime/telemetry/step_class.h"

namespace strake::launch {

std::string count_text(double number);        // "987", "12.3k", "124M", "1.08B"
std::string duration_text(Seconds duration);  // "60ms", "8.3s", "42s", "3m05s", "1h23m", "3d04h"

// When the next checkpoint is due, by the policy in force; neither: none is known.
struct NextCheckpoint {
  std::optional<std::int64_t> step;
  std::optional<Seconds> in;
};

struct Progress {
  std::int64_t step = 0, steps = 0;  // done, in all
  double loss = 0;                   // of this step
  double learning_rate = 0;
  double grad_norm = 0;
  // Of recent steps, without their evaluations and checkpoints.
  double tokens_per_s = 0;
  std::optional<double> mfu;      // 0 to 1
  std::optional<double> exposed;  // share of the time that waits for communication; none on one rank
  Seconds elapsed{0};             // of this attempt
  std::optional<Seconds> left;
  NextCheckpoint next_checkpoint;
  std::string doing;  // in place of training: "evaluation"; empty: training
  // The rank that computes longest, if it is far behind the mean.
  struct Slow {
    int rank;
    double factor;
    StepClass step_class;
  };
  std::optional<Slow> slow;
};

// At most `columns`, whatever they are; what matters least is left out first.
// "[=====>      ]  step 840/2000  loss 2.1034  lr 5.4e-4  norm 0.61  41.2k tok/s  MFU 38%  exposed 3%  elapsed 2m05s
// ETA 3m10s  checkpoint at 1000"
std::string bar_text(const Progress& progress, int columns);
// "step 840/2000 loss 2.1034 lr 5.4e-4 norm 0.61 41.2k tok/s MFU 38% exposed 3% ETA 3m10s"
std::string line_text(const Progress& progress, int columns);

}  // namespace strake::launch
