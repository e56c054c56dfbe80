#include "launch/train/rank_run.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "launch/job/agreement.h"
#include "launch/job/exit_report.h"
#include "launch/report/rank_view.h"
#include "launch/train/run_account.h"
#include "launch/train/run_facts.h"

namespace strake::launch {

using std::chrono::steady_clock;

void RankRun::loop(std::int64_t last) {
  bool stopping = all_agree_to_stop();
  for (std::int64_t step = start_.step; step < last && !stopping; ++step) {
    enqueue(step);
    finish_exchange();  // of step - 2, which tells all ranks alike whether to stop
    const std::int64_t done = step + 1;
    const bool at_end = done == last;
    stopping = result_.stop_signal != 0;
    if (stopping && !at_end && parts_.watch != nullptr) {
      parts_.watch->stops_behind(done, result_.stop_signal, stop_rank_);
    }
    if (step > start_.step) start_exchange(step - 1);
    parts_.check();
    saves_.check();

    if (at_end && parts_.watch != nullptr) parts_.watch->ending();
    const bool keeps = checkpoints_.wanted(done, stopping);
    const bool evaluates = held_out_.wanted(done, at_end && !stopping);
    // What was computed is kept before anything else is done with it, unless its loss decides how long it is kept.
    const bool loss_first = keeps && evaluates && !stopping && config_.checkpoint.keep_best > 0;
    if (loss_first) evaluate(done, true);
    if (keeps) {
      finish_exchange();  // what comes before a checkpoint is not redone: its lines must be written
      save(done, at_end || stopping);
    }
    if (evaluates && !loss_first) evaluate(done, true);
  }
  // A run whose last step is done is done.
  if (result_.steps_done >= last) result_.stop_signal = 0;
  if (result_.steps_done > start_.step) finish_last_steps();
  saves_.finish();
}

void RankRun::enqueue(std::int64_t step) {
  if (hooks_.before_step) hooks_.before_step(step);
  if (parts_.watch != nullptr) parts_.watch->at_step(step + 1);
  const auto section = parts_.at(fmt::format("next batch and launch of step {}", step + 1));
  trainer_.step(step);
  result_.steps_done = step + 1;
}

void RankRun::finish_last_steps() {
  trainer_.end();
  finish_exchange();
  start_exchange(result_.steps_done - 1);
  const int stopped_by = result_.stop_signal;
  finish_exchange();
  result_.stop_signal = stopped_by;  // what is asked for now comes too late
}

void RankRun::start_exchange(std::int64_t step) {
  StepReport report = exchange_.read(step);
  if (hooks_.on_report) hooks_.on_report(report);
  exchange_.start(std::move(report), {.stop_signal = asked_to_stop(),
                                      .checkpoint_due = checkpoints_.due(steady_clock::now()),
                                      .save_ended = saves_.ended()});
}

void RankRun::finish_exchange() {
  const std::optional<FinishedStep> finished = exchange_.finish();
  if (!finished.has_value()) return;
  if (finished->stop_signal != 0 && result_.stop_signal == 0) {
    result_.stop_signal = finished->stop_signal;
    stop_rank_ = finished->stop_rank;
  }
  if (finished->checkpoint_due) checkpoints_.all_know();
  const StepSummary summary{finished->step(), finished->loss, finished->report.grad_norm, finished->stop_signal};
  if (!result_.first_loss.has_value()) result_.first_loss = summary.loss;
  result_.last_loss = summary.loss;
  if (hooks_.on_step) hooks_.on_step(summary);
  run_.log->step(finished->report, summary.loss, trainer_);
  if (!std::isfinite(summary.loss) || !std::isfinite(summary.grad_norm)) {
    // The same numbers on every rank: all of them leave here.
    throw AgreedError(ExitCode::kNonFinite,
                      fmt::format("step {}: the loss or the gradient norm is not finite: training has diverged. {}",
                                  summary.step, after_divergence(config_, checkpoints_.newest())));
  }
  if (finished->save_ended) saves_.finish();
  if (finished->report.step - start_.step >= kWarmupSteps) breakdown_.add(finished->times);
  view_.step(summary, trainer_.learning_rate(finished->report.step), finished->times,
             checkpoints_.next(summary.step, steady_clock::now()));
}

void RankRun::save(std::int64_t step, bool last) {
  if (!saves_.make_room(step, last)) return;
  checkpoint::Meta meta = meta_behind(step, config_, parts_, run_, start_, hooks_.peak_flops);
  const std::optional<HeldOut>& loss = result_.last_held_out;
  if (loss.has_value() && loss->step == step) meta.held_out_loss = loss->loss;
  saves_.begin(meta, last);
}

void RankRun::evaluate(std::int64_t step, bool writes) {
  view_.doing("evaluation");
  const auto section = parts_.at(fmt::format("held-out loss behind step {}", step), Patience::kLong);
  const auto begin = steady_clock::now();
  const HeldOut held_out = held_out_.compute(step);
  result_.last_held_out = held_out;
  result_.best_held_out = held_out_.best();
  view_.evaluated(held_out, trainer_.held_out_tokens(), steady_clock::now() - begin);
  if (parts_.leads() && writes) run_.log->evaluation(step, held_out.loss, trainer_.held_out_tokens());
  if (!std::isfinite(held_out.loss)) {
    throw AgreedError(ExitCode::kNonFinite,
                      fmt::format("step {}: the held-out loss is not finite: training has diverged. {}", step,
                                  after_divergence(config_, checkpoints_.newest())));
  }
}

int RankRun::asked_to_stop() const {
  if (const int signal = hooks_.stop_requested ? hooks_.stop_requested() : 0; signal != 0) return signal;
  return parts_.watch != nullptr ? parts_.watch->asked_to_stop() : 0;
}

bool RankRun::all_agree_to_stop() {
  for (const std::string& signal : parts_.control.all_gather(std::to_string(asked_to_stop()))) {
    if (signal != "0" && result_.stop_signal == 0) result_.stop_signal = std::stoi(signal);
  }
  return result_.stop_signal != 0;
}

RankRun::RankRun(const Config& config, const RankParts& parts, const TrainHooks& hooks,
                 const std::vector<std::string>& command_line, LiveView& view, OpenRun& run, const RunStart& start)
    : config_(config),
      parts_(parts),
      hooks_(hooks),
      command_line_(command_line),
      view_(view),
      run_(run),
      trainer_(*run.trainer),
      start_(start),
      checkpoints_(config, start.step > 0 ? std::optional(start.step) : std::nullopt, steady_clock::now()),
      saves_(config, parts, run, checkpoints_, view),
      held_out_(config, parts.control, trainer_, run.folder.evaluations()),
      exchange_(parts, trainer_),
      breakdown_(parts.control.size()) {
  result_.first_step = result_.steps_done = start.step;
  result_.load_s = trainer_.checkpointer().loaded().seconds;
  if (start.same_held_out) held_out_.compare_with_earlier(start.step);
  result_.best_held_out = held_out_.best();
}

TrainResult RankRun::train() {
  const auto began = steady_clock::now();
  const std::int64_t last = last_step(config_);
  view_.start(start_facts(config_, parts_, run_, start_, hooks_.peak_flops), work_of(config_, checkpoints_),
              config_.log.every);
  if (start_.step < last) {
    if (held_out_.lost(start_.step)) evaluate(start_.step, true);
    if (hooks_.before_first_step) hooks_.before_first_step(trainer_);
    checkpoints_.begin(steady_clock::now());
    loop(last);
  } else {
    parts_.log.info("nothing to do: {} steps are done, and train.{} is {}; raise it to go on", start_.step,
                    last < config_.train.steps ? "stop_at" : "steps", last);
    if (held_out_.wanted(start_.step, true)) evaluate(start_.step, held_out_.due(start_.step));
  }
  if (parts_.leads()) {
    EndFacts facts = end_facts(config_, run_, result_, command_line_);
    facts.duration = steady_clock::now() - began;
    facts.breakdown = breakdown_text(breakdown_, parts_, run_, hooks_.peak_flops);
    facts.checkpoint = checkpoints_.newest();
    view_.end(facts, breakdown_);
  }
  return std::move(result_);
}

TrainResult train_rank(const Config& config, RankParts parts, const TrainHooks& hooks,
                       const std::vector<std::string>& command_line) {
  RankView view(config.log.format, parts.log, parts.watch);
  parts.log = view.log();
  OpenRun run = open_run(config, parts, hooks);
  try {
    const RunStart start = resume_or_initialize(config, parts, run);
    write_run_manifest(config, parts, run, start, command_line, hooks.peak_flops);
    return RankRun(config, parts, hooks, command_line, view.live(), run, start).train();
  } catch (const AgreedError&) {
    throw;
  } catch (const std::exception& error) {
    view.live().close();
    end_job(error, parts.control, parts.watch);  // before our streams are drained
    throw;
  }
}

}  // namespace strake::launch
