#include "launch/verify/train_variant.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "launch/job/agreement.h"
#include "launch/job/exit_report.h"
#include "launch/job/random_tokens.h"
#include "launch/job/rank_environment.h"
#include "launch/job/rank_memory.h"
#include "launch/train/step_exchange.h"
#include "launch/verify/variant_device.h"

namespace strake::launch {
namespace {

constexpr std::uint64_t kDelaySeed = 41;

// What a variant trains on.
struct Inputs {
  Job job;
  std::unique_ptr<data::TokenSource> tokens;
};

Inputs open_inputs(const Config& config, const RankParts& parts) {
  const int rank = parts.control.rank(), ranks = parts.control.size();
  Inputs inputs;
  if (asks_for_random_tokens(config)) {
    inputs.job = job_of(config, rank, ranks, parts.device.target(), config.model.vocab);
    inputs.tokens = std::make_unique<RandomTokens>(config);
  } else {
    JobInputs opened = JobInputs::open(config, rank, ranks, parts.device.target());
    inputs.job = opened.job;
    inputs.tokens = std::move(opened.train);
  }
  return inputs;
}

void take_steps(Trainer& trainer, const RankParts& parts, std::int64_t steps,
                const std::function<int()>& stop_requested, RankRecord& record) {
  StepExchange exchange(parts, trainer);
  const auto finish = [&] {
    const std::optional<FinishedStep> finished = exchange.finish();
    if (!finished.has_value()) return;
    if (!std::isfinite(finished->loss) || !std::isfinite(finished->report.grad_norm)) {
      throw AgreedError(ExitCode::kNonFinite,
                        fmt::format("step {}: the loss or the gradient norm is not finite: there "
                                    "is nothing to compare; use a smaller optimizer.learning_rate",
                                    finished->step()));
    }
    if (record.stop_signal == 0) record.stop_signal = finished->stop_signal;
  };
  const auto read = [&](std::int64_t step) {
    StepReport report = exchange.read(step);
    record.steps.push_back({report.loss, report.grad_norm});
    exchange.start(std::move(report), {.stop_signal = stop_requested ? stop_requested() : 0});
  };
  // As in a run, the host is a step ahead of the device.
  std::int64_t step = 0;
  for (; step < steps && record.stop_signal == 0; ++step) {
    trainer.step(step);
    finish();
    if (step > 0) read(step - 1);
    parts.check();
  }
  trainer.end();
  finish();
  read(step - 1);
  finish();
}

void train(Trainer& trainer, const RankParts& parts, std::int64_t steps, const std::function<int()>& stop_requested,
           RankRecord& record) {
  try {
    trainer.initialize(usable_cores(RankEnvironment::detect()));
    trainer.seek(0);
    take_steps(trainer, parts, steps, stop_requested, record);
    if (record.stop_signal == 0) record.state = fingerprints_of(trainer, parts.device);
    parts.check();
  } catch (const CommError&) {
    parts.device.check();  // what went wrong here says more than that the others know of it
    throw;
  }
}

}  // namespace

RankRecord train_variant(const Config& config, const Variant& variant, std::int64_t steps, const RankParts& base,
                         const std::function<int()>& stop_requested, const VerifyHooks& hooks) {
  Config varied = with(config, variant);
  varied.train.steps = steps;
  varied.train.stop_at = 0;
  const int rank = base.control.rank();
  VariantDevice device(base.device, variant, rank, kDelaySeed);
  std::unique_ptr<Device> wrapped;
  if (hooks.wrap_device) wrapped = hooks.wrap_device(device.device(), variant, rank);
  const RankParts parts{.device = wrapped != nullptr ? *wrapped : device.device(),
                        .communicator = base.communicator,
                        .control = base.control,
                        .files = base.files,
                        .log = base.log,
                        .watch = base.watch};

  Inputs inputs;
  agree(parts.control, [&] { inputs = open_inputs(varied, parts); });
  const TokenSources sources{.train = inputs.tokens.get(), .val = nullptr};
  StepPlan plan;
  Job planned = inputs.job;
  planned.derived.accumulation = std::min(planned.derived.accumulation, kMicroBatchesOfMemory);
  agree(parts.control, [&] { plan = Trainer::plan(planned, parts.communicator, sources, &parts.device); });
  std::unique_ptr<Trainer> trainer;
  agree(parts.control,
        [&] { trainer = std::make_unique<Trainer>(inputs.job, parts.device, parts.communicator, sources, &plan); });
  take_memory(parts.control, parts.device, *trainer);

  RankRecord record;
  record.buckets = static_cast<std::int64_t>(trainer->buckets().buckets.size());
  try {
    train(*trainer, parts, steps, stop_requested, record);
  } catch (const AgreedError&) {
    throw;
  } catch (const std::exception& error) {
    // Before our streams are drained, which may wait for others. Threads of one process leave the word to who waits for
    // them.
    if (parts.watch != nullptr) {
      end_job(error, parts.control, parts.watch);
    } else {
      parts.control.abort(static_cast<int>(ExitCode::kFailure));
    }
    throw;
  }
  record.operations_checked = device.checker().operations_checked();
  const std::vector<OrderChecker::Report>& reports = device.checker().reports();
  record.reports = static_cast<std::int64_t>(reports.size());
  for (std::size_t i = 0; i < std::min(reports.size(), RankRecord::kMostReports); ++i)
    record.first_reports.push_back(reports[i].describe());
  return record;
}

}  // namespace strake::launch
