#include "launch/train/step_log.h"

#include <chrono>
#include <cmath>
#include <limits>

#include "launch/report/mfu.h"
#include "launch/run/run_folder.h"

namespace strake::launch {
namespace {

template <typename Clock>
std::int64_t now_ns() {
  return std::chrono::duration_cast<Nanoseconds>(Clock::now().time_since_epoch()).count();
}

}  // namespace

StepLog::StepLog(Files& files, const Job& job, const SharedFolder& folder, double peak_flops)
    : run_(folder.run),
      attempt_(folder.attempt),
      rank_(job.rank),
      ranks_(job.ranks),
      tokens_per_step_(job.derived.tokens_per_step),
      flops_per_token_(job.shape.model_flops_per_token()),
      peak_flops_(peak_flops),
      records_(files, step_record_path(job.config.run.dir, job.rank)) {
  if (rank_ == 0) metrics_.emplace(files, metrics_path(job.config.run.dir));
}

void StepLog::step(const StepReport& report, double loss, const Trainer& trainer) {
  StepRecord record{.run = run_,
                    .attempt = static_cast<std::uint32_t>(attempt_),
                    .rank = static_cast<std::uint32_t>(rank_),
                    .step = report.step + 1,
                    .unix_ns = now_ns<std::chrono::system_clock>(),
                    .monotonic_ns = now_ns<std::chrono::steady_clock>(),
                    .wall = report.times.wall,
                    .tokens = tokens_per_step_ / ranks_,
                    .loss = loss,
                    .grad_norm = report.grad_norm,
                    .learning_rate = trainer.learning_rate(report.step),
                    .flags = std::isfinite(loss) ? 0 : kStepNonFinite,
                    .collectives = static_cast<std::uint32_t>(report.buckets.size()),
                    .comm_bytes = static_cast<std::uint64_t>(trainer.buckets().bytes()),
                    .comm_busy = report.comm_busy};
  if (report.saved) record.flags |= kStepHasCheckpoint;
  if (report.times.of(StepClass::kOther).count() > 0) record.flags |= kStepHasEval;
  for (std::size_t i = 0; i < kStepClasses; ++i) record.durations[i] = report.times.classes[i];
  records_.append(record);
  if (!metrics_.has_value()) return;
  const double tokens_per_s =
      static_cast<double>(tokens_per_step_) / std::chrono::duration<double>(report.times.wall).count();
  metrics_->append({.step = record.step,
                    .attempt = attempt_,
                    .loss = loss,
                    .learning_rate = record.learning_rate,
                    .grad_norm = report.grad_norm,
                    .tokens_per_s = tokens_per_s,
                    .mfu = mfu(tokens_per_s, flops_per_token_, peak_flops_, ranks_),
                    .wall = report.times.wall,
                    .durations = record.durations});
}

void StepLog::restore(std::int64_t step, std::int64_t attempt, const StepNumbers& numbers) {
  constexpr double kNotKnown = std::numeric_limits<double>::quiet_NaN();
  metrics_->append(StepMetrics{.step = step,
                               .attempt = attempt,
                               .loss = numbers.loss,
                               .learning_rate = numbers.learning_rate,
                               .grad_norm = numbers.grad_norm,
                               .tokens_per_s = kNotKnown,
                               .mfu = kNotKnown});
}

void StepLog::evaluation(std::int64_t step, double loss, std::int64_t tokens) {
  metrics_->append(EvalMetrics{.step = step, .attempt = attempt_, .val_loss = loss, .tokens = tokens});
}

void StepLog::checkpoint(std::int64_t step, const checkpoint::SaveReport& report,
                         std::chrono::duration<double> waited) {
  metrics_->append(CheckpointMetrics{.step = step,
                                     .attempt = attempt_,
                                     .bytes = report.bytes,
                                     .waited_ms = waited.count() * 1e3,
                                     .returned_ms = report.returned_s * 1e3,
                                     .snapshot_ms = report.snapshot_s * 1e3,
                                     .durable_ms = report.durable_s * 1e3});
}

}  // namespace strake::launch
