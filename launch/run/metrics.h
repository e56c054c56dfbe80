// metrics.jsonl: one JSON object a line for every step, for every evaluation (with `val_loss` instead of `loss`), and
// for every checkpoint (with `durable_ms`). The fields are documented in docs/formats.md.
//
// Threads: one writer, rank 0. Errors: IoError; CorruptError for a line that is not ours.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "runtime/io/files.h"
#include "runtime/telemetry/step_record.h"

namespace strake::launch {

struct StepMetrics {
  std::int64_t step = 0;
  std::int64_t attempt = 0;
  double loss = 0;
  double learning_rate = 0;
  double grad_norm = 0;
  double tokens_per_s = 0;           // over all ranks
  double mfu = 0;                    // 0..1; 0: the device's peak is not known
  std::chrono::nanoseconds wall{0};  // 0: times are not known, nor what follows from them
  StepDurations durations{};         // of rank 0
};

struct EvalMetrics {
  std::int64_t step = 0;
  std::int64_t attempt = 0;
  double val_loss = 0;  // nats a token
  std::int64_t tokens = 0;
};

// Times since the checkpoint was called for, on rank 0.
struct CheckpointMetrics {
  std::int64_t step = 0;
  std::int64_t attempt = 0;
  std::uint64_t bytes = 0;  // written by rank 0
  double waited_ms = 0;     // before that, for the one before
  double returned_ms = 0;   // training went on
  double snapshot_ms = 0;   // the state was in host memory
  double durable_ms = 0;    // there is a checkpoint
};

class MetricsFile {
 public:
  // Opens or creates; cuts a torn tail.
  MetricsFile(Files& files, const std::filesystem::path& path);
  void append(const StepMetrics& metrics);
  void append(const EvalMetrics& metrics);
  void append(const CheckpointMetrics& metrics);

 private:
  std::unique_ptr<File> file_;
};

struct Metrics {
  std::vector<StepMetrics> steps;              // ascending; of a redone step the last one written
  std::vector<EvalMetrics> evals;              // the same
  std::vector<CheckpointMetrics> checkpoints;  // the same
  std::int64_t highest_attempt = 0;
};

// A torn last line is not there yet: it is left out.
Metrics read_metrics(Files& files, const std::filesystem::path& path);

}  // namespace strake::launch
