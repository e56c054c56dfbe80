// What a run says to people when it starts and when it ends. Pure functions of facts, so that tests compare text.
// Threads: values, pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/job/rank_environment.h"
#include "launch/job/rank_map.h"
#include "launch/report/progress.h"
#include "launch/train/train.h"
#include "runtime/base/dtype.h"

namespace strake::launch {

struct StartFacts {
  std::string run_dir;
  std::int64_t attempt = 1;
  std::string device;  // of rank 0
  int ranks = 1;
  std::string communicator;  // what connects them: "nccl"
  std::string switches;      // switches_text(); empty: none is set
  std::vector<RankDescription> rank_map;

  std::string model;  // "gpt2"
  std::int64_t layers = 0, channels = 0, parameters = 0;
  DType dtype = DType::kF32, gradient_dtype = DType::kF32, wire_dtype = DType::kF32;

  std::int64_t micro_batch = 0, accumulation = 1, global_batch = 0;  // sequences
  std::int64_t sequence = 0, tokens_per_step = 0;                    // tokens
  std::size_t device_bytes = 0, host_bytes = 0;                      // of memory that a rank takes
  bool memory_apart = true;                                          // the device has memory of its own
  std::size_t buckets = 0;
  double flops_per_token = 0, peak_flops = 0;  // of the model; of a rank's device, 0: not known

  std::int64_t first_step = 0, last_step = 0;  // done before; after which this attempt ends
  std::int64_t steps = 0;                      // of the whole schedule
  std::string train_tokens;                    // as the config names it
  std::int64_t sequences = 0;                  // in it
  std::int64_t first_sample = 0;               // that this attempt trains on, counted from the run's beginning
  std::string how_to_stop;                     // stop_text()
};

// Who is told to stop so that the ranks write a checkpoint.
struct StopTarget {
  RankEnvironment::Launcher launcher = RankEnvironment::Launcher::kPlain;
  std::int64_t process = 0;     // mpirun, or this one without a launcher; 0: not known, on another host
  std::string grace_s = "1";    // from Ctrl-C at mpirun until the ranks hear of it, and again until they are killed
  std::string slurm_step = {};  // "4242.0"

  // Of this process.
  static StopTarget detect();
};
// One line; empty: not known.
std::string stop_text(const StopTarget& target);

// Several lines, none ends in a newline.
std::string start_text(const StartFacts& facts);

// The epoch (from 1) that begins within the `batch` samples from `first_sample` on; nullopt: none, or the first.
std::optional<std::int64_t> epoch_beginning(std::int64_t first_sample, std::int64_t batch, std::int64_t sequences);

struct EndFacts {
  std::string run_dir;
  std::int64_t steps = 0;                     // of the whole schedule
  std::int64_t stop_at = 0;                   // train.stop_at
  TrainResult result;                         // its best_held_out: of all attempts
  Seconds duration{0};                        // of this attempt
  std::string breakdown;                      // where the time of a step went; empty: too few steps
  std::optional<std::int64_t> checkpoint;     // newest that is durable: the step
  bool generates = false;                     // its tokens can be written as text
  std::vector<std::string> command_line;      // that started this attempt
  RankEnvironment environment = {};           // and how
  bool oversubscribed = false, root = false;  // mpirun needs a flag for it
};

std::string end_text(const EndFacts& facts);
// How this process was started: launcher, whether mpirun was told to share cores, and runs as root by a flag.
void describe_launch(EndFacts& facts);

// As one word of a shell.
std::string shell_quote(std::string_view word);

}  // namespace strake::launch
