// The training loop of one rank: start or resume, step, read the past step, checkpoint, evaluate, stop.
//
// While the device computes step k the host reads step k - 1 and starts the exchange of its numbers between
// ranks; it reads that exchange while step k + 1 runs. So the host is a step ahead of the device and nothing
// waits for control.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "checkpoint/directory.h"
#include "checkpoint/reader.h"
#include "data/byte_tokenizer.h"
#include "data/data_cursor.h"
#include "launch/job/agreement.h"
#include "launch/job/exit_report.h"
#include "launch/job/job_inputs.h"
#include "launch/job/rank_environment.h"
#include "launch/job/rank_memory.h"
#include "launch/job/same_on_all_ranks.h"
#include "launch/report/breakdown.h"
#include "launch/report/live_view.h"
#include "launch/report/mfu.h"
#include "launch/run/checkpoint_model.h"
#include "launch/run/manifest.h"
#include "launch/run/metrics.h"
#include "launch/run/resume.h"
#include "launch/run/run_folder.h"
#include "launch/train/initial_weights.h"
#include "launch/train/train.h"
#include "models/transformer.h"
#include "runtime/base/host_name.h"
#include "runtime/base/line_output.h"

namespace strake::launch {
namespace {

using std::chrono::steady_clock;

std::int64_t unix_ns() {
  return std::chrono::duration_cast<Nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// What every rank tells the others about a finished step.
struct StepNote {
  double loss;  // its share
  double stop_signal;
  double checkpoint_due;  // by rank 0's clock
  RankStep times;

  static constexpr std::size_t kOwnValues = 3;
  static constexpr std::size_t kValues = kOwnValues + RankStep::kValues;
  std::vector<double> to_values() const {
    std::vector<double> values{loss, stop_signal, checkpoint_due};
    times.append_to(values);
    return values;
  }
};

class RankRun {
 public:
  RankRun(const Config& config, RankParts parts, const TrainHooks& hooks, const std::vector<std::string>& command_line)
      : config_(config),
        parts_(parts),
        hooks_(hooks),
        command_line_(command_line),
        rank_(parts.control.rank()),
        ranks_(parts.control.size()),
        view_style_(view_style(config.log.format, screen_of(STDERR_FILENO))),
        view_(view_style_, parts.log,
              {.write = [this](std::string_view text) { error_output_.write(text); },
               .columns = [] { return screen_of(STDERR_FILENO).columns; }}),
        breakdown_(ranks_) {
    parts_.log = parts_.log.to(view_);
    if (parts_.watch != nullptr) voice_.emplace(*parts_.watch, parts_.log);
  }

  TrainResult run() {
    open();
    try {
      resume_or_initialize();
      say_start();
      loop();
    } catch (const AgreedError&) {
      throw;
    } catch (const std::exception& error) {
      view_.close();
      // The others may be waiting for this rank: end the job before our streams are drained.
      if (ranks_ > 1) {
        const int code = report_error(error, rank_, ranks_);
        if (parts_.watch != nullptr) parts_.watch->said_why();
        parts_.control.abort(code);
      }
      throw;
    }
    return std::move(result_);
  }

 private:
  bool leads() const { return rank_ == 0; }
  // What this rank is at until the result is gone, for who asks when nothing moves.
  std::optional<RankWatch::Section> at(std::string what, Patience patience = Patience::kStep) const {
    if (parts_.watch == nullptr) return std::nullopt;
    return parts_.watch->enter(std::move(what), patience);
  }

  // Everything that can fail on bad input, before and while memory is taken.
  void open() {
    agree(parts_.control, [&] {
      inputs_ = JobInputs::open(config_, rank_, ranks_, parts_.device.target());
      if (hooks_.wrap_train_source) wrapped_source_ = hooks_.wrap_train_source(*inputs_.train);
    });
    require_same_on_all_ranks(parts_.control, inputs_.identity(), "give every rank the same files");
    agree(parts_.control, [&] { find_initial_weights(); });
    if (!inputs_.job.derived.note.empty()) parts_.log.info("{}", inputs_.job.derived.note);
    open_run_folder();
    TokenSources sources = inputs_.sources();
    if (wrapped_source_ != nullptr) sources.train = wrapped_source_.get();
    StepPlan plan;
    agree(parts_.control, [&] { plan = Trainer::plan(inputs_.job, parts_.communicator, sources, &parts_.device); });
    choose_kernels();
    agree(parts_.control, [&] {
      trainer_ = std::make_unique<Trainer>(inputs_.job, parts_.device, parts_.communicator, sources, &plan);
    });
    as_agreed([&] {
      trainer_->keep_checkpoints(
          parts_.files, parts_.control,
          {.directory = checkpoint_folder(config_.run.dir),
           .keep = static_cast<int>(config_.checkpoint.keep),
           .attempt = attempt_,
           .log = [this](std::string_view line) { parts_.log.write(LogLevel::kWarning, line); }});
    });
    take_memory(parts_.control, parts_.device, *trainer_);
    parts_.log.debug("memory of each rank:\n{}", trainer_->memory_table().describe());
  }

  // Algorithms that are chosen by timing are chosen by rank 0, once a run: a resumed run takes what its checkpoint
  // says, and times only what is new or was chosen elsewhere.
  void choose_kernels() {
    KernelState* kernels = parts_.device.kernel_state();
    if (kernels == nullptr) return;
    using Choices = std::map<std::string, std::string>;
    agree(parts_.control, [&] {
      if (!leads()) return;
      const auto found = checkpoint::find_newest(parts_.files, checkpoint_folder(config_.run.dir));
      if (found.has_value()) {
        kernels->apply(nlohmann::json::parse(found->manifest.meta.choices).value("kernels", Choices()));
      }
      for (const std::string& line : kernels->tune()) parts_.log.info("{}", line);
    });
    const std::string told =
        parts_.control.broadcast(leads() ? nlohmann::json(kernels->choices()).dump() : std::string(), 0);
    if (leads()) return;
    const auto chosen = nlohmann::json::parse(told).get<Choices>();
    kernels->apply(chosen);
    if (kernels->choices() != chosen)
      parts_.log.warning("{} cannot run every algorithm that rank 0 has chosen", parts_.device.description());
  }

  void open_run_folder() {
    // Rank 0 looks at the folder and takes it; the others learn what it found.
    agree(parts_.control, [&] {
      if (!leads()) return;
      folder_.emplace(RunFolder::start(parts_.files, config_.run.dir, config_.checkpoint.resume));
      require_readable_model(parts_.files, config_.run.dir);
    });
    const nlohmann::json told = nlohmann::json::parse(parts_.control.broadcast(
        leads() ? nlohmann::json{folder_->attempt(), folder_->run(), folder_->holds_run()}.dump() : std::string(), 0));
    attempt_ = told.at(0);
    run_ = told.at(1);
    holds_run_ = told.at(2);
    require_shared_folder();
    agree(parts_.control, [&] {
      records_.emplace(parts_.files, step_record_path(config_.run.dir, rank_));
      if (leads()) metrics_.emplace(parts_.files, metrics_path(config_.run.dir));
    });
  }

  // All ranks must see the folder that rank 0 has taken: another one, as where a file system is not mounted, would
  // split the checkpoints between two places, and make every one look damaged.
  void require_shared_folder() {
    if (ranks_ == 1) return;
    const std::filesystem::path path = std::filesystem::path(config_.run.dir) / "run.seen";
    const std::string token = fmt::format("{:016x} {}\n", run_, unix_ns());
    agree(parts_.control, [&] {
      if (leads()) replace_file(parts_.files, path, token);
    });
    const std::string told = parts_.control.broadcast(token, 0);
    agree(parts_.control, [&] {
      // A network file system may show a new file late.
      const auto give_up = steady_clock::now() + std::chrono::seconds(5);
      while (true) {
        if (parts_.files.exists(path) && read_file(parts_.files, path, 100) == told) return;
        if (steady_clock::now() >= give_up) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
      throw ConfigError(
          fmt::format("run.dir: {} on host {} is not the folder that rank 0 has there; all ranks need one "
                      "shared folder: mount it, or name another",
                      config_.run.dir, host_name()));
    });
    agree(parts_.control, [&] {
      if (leads()) parts_.files.remove(path);
    });
  }

  // Of a run that has no checkpoint: before it leaves anything in its folder.
  void find_initial_weights() {
    if (!leads() || config_.train.init_from.empty()) return;
    const auto checkpoints = checkpoint_folder(config_.run.dir);
    if (!checkpoint::committed_steps(parts_.files, checkpoints).empty() ||
        !checkpoint::set_aside_steps(parts_.files, checkpoints).empty()) {
      return;
    }
    initial_weights_.emplace(parts_.files, config_.train.init_from, inputs_.job.shape.to_json(), cursor(0));
  }

  void initialize() {
    if (config_.train.init_from.empty()) return trainer_->initialize(usable_cores(RankEnvironment::detect()));
    origin_ = as_agreed([&] {
      return InitialWeights::load(parts_.files, parts_.control, initial_weights_ ? &*initial_weights_ : nullptr,
                                  *trainer_);
    });
    parts_.log.info("starting from the weights of step {} of {}: optimizer, schedule and data begin anew",
                    origin_->step, origin_->checkpoint);
  }

  // What the run was started from stays in its manifests. The key counts for a new run only.
  void recall_initial_weights() {
    if (!leads()) return;
    const EarlierAttempt earlier = read_earlier_attempt(parts_.files, config_.run.dir);
    origin_ = earlier.initialized_from;
    if (!config_.train.init_from.empty() && config_.train.init_from != earlier.init_from) {
      parts_.log.warning("train.init_from = {} is ignored: {} has a checkpoint and goes on from its own weights",
                         config_.train.init_from, config_.run.dir);
    }
  }

  void resume_or_initialize() {
    const std::string model = inputs_.job.shape.to_json();
    const std::optional<checkpoint::Meta> meta = as_agreed([&] { return trainer_->load_newest(model); });
    if (meta.has_value()) {
      agree(parts_.control, [&] { require_data_of(*meta); });
      result_.first_step = meta->step;
      first_tokens_ = meta->tokens;
      if (!meta->data_cursor.empty()) first_sample_ = data::cursor_from_json(meta->data_cursor).next_sample;
      same_held_out_ = evaluates_the_same(meta->config);
      recall_initial_weights();
      if (meta->data_cursor.empty()) {
        parts_.log.info("starting from the weights that were imported into {}", config_.run.dir);
      } else {
        parts_.log.info("resumed behind step {} of {}", meta->step, config_.run.dir);
      }
      for (const std::string& line : changes_since(meta->config, config_, meta->step, first_sample_)) {
        parts_.log.info("changed since the checkpoint: {}", line);
      }
    } else {
      if (config_.checkpoint.resume == Resume::kMust) {
        throw AgreedError(
            ExitCode::kNoCheckpoint,
            fmt::format("checkpoint.resume = true, but {} holds no checkpoint; set checkpoint.resume = auto "
                        "to start from the beginning",
                        config_.run.dir));
      }
      if (holds_run_ && leads())
        parts_.log.warning("{} holds a run without a checkpoint: starting from the beginning", config_.run.dir);
      initialize();
    }
    trainer_->seek(first_sample_);
    result_.steps_done = result_.first_step;
    write_run_manifest();
  }

  // As the run that wrote `saved`, so that losses compare.
  bool evaluates_the_same(const std::string& saved) const {
    if (saved.empty()) return false;
    const Config before = config_from_json(saved);
    return before.data.val == config_.data.val && before.eval.batches == config_.eval.batches &&
           before.train.micro_batch == config_.train.micro_batch && before.train.sequence == config_.train.sequence;
  }

  // Imported weights have an empty cursor: no data went into them here, and any of their tokenizer may.
  void require_data_of(const checkpoint::Meta& meta) const {
    if (meta.data_cursor.empty()) {
      data::require_same_tokenizer(data::tokenizer_from_json(meta.tokenizer, "tokenizer of the checkpoint"), cursor(0));
    } else {
      const data::DataCursor saved = data::cursor_from_json(meta.data_cursor);
      if (saved.seed != static_cast<std::uint64_t>(config_.run.seed) || saved.sequence != config_.train.sequence) {
        throw ConfigError(
            fmt::format("{} was begun with run.seed = {} and train.sequence = {}, which order its samples; set them "
                        "so, or start in a new run.dir",
                        config_.run.dir, saved.seed, saved.sequence));
      }
      data::require_same_data(saved, cursor(0));
    }
  }

  void write_run_manifest() {
    const RankEnvironment environment = RankEnvironment::detect();
    const std::vector<std::string> texts = parts_.control.all_gather(
        to_text({.rank = rank_, .host = host_name(), .pid = getpid(), .device = parts_.device.description()}));
    agree(parts_.control, [&] {
      if (!leads()) return;
      Manifest manifest{.run = run_,
                        .attempt = attempt_,
                        .command_line = command_line_,
                        .config = config_,
                        .ranks = {},
                        .mesh = {{ranks_, 1, 1}},
                        .launcher = environment.launcher_name(),
                        .choices = choices(),
                        .resumed_from_step = result_.first_step,
                        .initialized_from = origin_};
      for (const std::string& text : texts) manifest.ranks.push_back(rank_description(text));
      write_manifest(parts_.files, config_.run.dir, manifest);
    });
  }

  // Everything chosen by measurement or derived from the machine.
  std::string choices() const {
    nlohmann::json out{{"accumulation", inputs_.job.derived.accumulation},
                       {"buckets", trainer_->buckets().buckets.size()},
                       {"communicator", parts_.communicator.backend()},
                       {"dtype", name_of(inputs_.job.dtype)},
                       {"gradient_dtype", name_of(inputs_.job.gradient_dtype)},
                       {"wire_dtype", name_of(trainer_->buckets().wire)},
                       {"peak_flops_per_rank", hooks_.peak_flops},
                       {"warmup_steps", inputs_.job.derived.warmup_steps},
                       {"min_learning_rate", inputs_.job.derived.min_learning_rate},
                       {"device", parts_.device.target() == DeviceKind::kCuda ? "cuda" : "cpu"}};
    if (const KernelState* kernels = parts_.device.kernel_state()) out["kernels"] = kernels->choices();
    return out.dump();
  }

  data::DataCursor cursor(std::int64_t steps_done) const {
    return data::make_cursor(*inputs_.train, static_cast<std::uint64_t>(config_.run.seed), config_.train.sequence,
                             samples_behind(steps_done));
  }

  // Of this run, over all attempts: an earlier one may have had another batch.
  std::int64_t samples_behind(std::int64_t steps_done) const {
    return first_sample_ + (steps_done - result_.first_step) * config_.train.global_batch;
  }
  std::int64_t tokens_behind(std::int64_t steps_done) const {
    return first_tokens_ + (steps_done - result_.first_step) * inputs_.job.derived.tokens_per_step;
  }

  void loop() {
    const std::int64_t last = last_step();
    if (result_.first_step >= last) {
      parts_.log.info("nothing to do: {} steps are done, and train.{} is {}; raise it to go on", result_.first_step,
                      last < config_.train.steps ? "stop_at" : "steps", last);
      if (inputs_.val != nullptr) evaluate(result_.first_step, false);
      if (leads()) say_summary();
      return;
    }
    if (lost_evaluation(result_.first_step)) evaluate(result_.first_step, false);
    if (hooks_.before_first_step) hooks_.before_first_step(*trainer_);
    last_save_ = steady_clock::now();
    bool stopping = stopped_before_the_first_step();
    for (std::int64_t step = result_.first_step; step < last && !stopping; ++step) {
      if (hooks_.before_step) hooks_.before_step(step);
      if (parts_.watch != nullptr) parts_.watch->at_step(step + 1);
      {
        const auto section = at(fmt::format("next batch and launch of step {}", step + 1));
        trainer_->step(step);
      }
      result_.steps_done = step + 1;
      finish_exchange();
      stopping = result_.stop_signal != 0;
      if (stopping && step + 1 < last && parts_.watch != nullptr) {
        parts_.watch->stops_behind(step + 1, result_.stop_signal, stop_rank_);
      }
      if (step > result_.first_step) start_exchange(step - 1);
      parts_.device.check();
      parts_.communicator.check();

      const bool at_end = step + 1 == last;
      if (at_end && parts_.watch != nullptr) parts_.watch->ending();
      // What was computed is kept before anything else is done with it.
      if (checkpoint_wanted(step + 1, at_end, stopping)) {
        finish_exchange();  // what comes before a checkpoint is not redone: its lines must be written
        save(step + 1);
      }
      if (inputs_.val != nullptr && (evaluation_due(step + 1) || (at_end && !stopping))) evaluate(step + 1, true);
    }
    // A run whose last step is done is done.
    if (result_.steps_done >= last) result_.stop_signal = 0;
    if (result_.steps_done > result_.first_step) {
      trainer_->end();
      finish_exchange();
      start_exchange(result_.steps_done - 1);
      const int stopped_by = result_.stop_signal;
      finish_exchange();
      result_.stop_signal = stopped_by;  // what is asked for now comes too late
    }
    if (leads()) say_summary();
  }

  // What to do then.
  std::string after_divergence() const {
    const std::string lower = "optimizer.learning_rate lower, or optimizer.clip_norm set";
    if (!checkpoint_.has_value()) return fmt::format("There is no checkpoint: start again with {}", lower);
    return fmt::format(
        "Resume from the checkpoint of step {} with {}; if that diverges at once, its weights had diverged "
        "already: move {} away to take an older one",
        *checkpoint_, lower, (checkpoint_folder(config_.run.dir) / checkpoint::step_name(*checkpoint_)).string());
  }

  bool evaluation_due(std::int64_t step) const { return config_.eval.every > 0 && step % config_.eval.every == 0; }

  bool checkpoint_wanted(std::int64_t step, bool at_end, bool stopping) const {
    if (stopping || (at_end && (config_.checkpoint.at_end || config_.train.stop_at == step))) return true;
    const std::optional<std::int64_t> every = config_.checkpoint.every;
    return every.has_value() ? *every > 0 && step % *every == 0 : checkpoint_due_;
  }

  // Where checkpoints come by time.
  std::optional<Seconds> checkpoint_interval() const {
    if (config_.checkpoint.every.has_value()) return std::nullopt;
    return Seconds(60 * config_.checkpoint.every_minutes);
  }

  // On rank 0, which decides for all.
  bool due_by_time() const {
    const std::optional<Seconds> interval = checkpoint_interval();
    return leads() && interval.has_value() && !checkpoint_due_ && steady_clock::now() - last_save_ >= *interval;
  }

  int asked_to_stop() const {
    if (const int signal = hooks_.stop_requested ? hooks_.stop_requested() : 0; signal != 0) return signal;
    return parts_.watch != nullptr ? parts_.watch->asked_to_stop() : 0;
  }

  bool stopped_before_the_first_step() {
    for (const std::string& signal : parts_.control.all_gather(std::to_string(asked_to_stop()))) {
      if (signal != "0" && result_.stop_signal == 0) result_.stop_signal = std::stoi(signal);
    }
    return result_.stop_signal != 0;
  }

  // An attempt that ended between the checkpoint of a step and its held-out loss leaves that to the next.
  bool lost_evaluation(std::int64_t step) const {
    if (inputs_.val == nullptr || step == 0 || !evaluation_due(step)) return false;
    std::string lost;
    if (leads()) {
      const bool there =
          std::ranges::any_of(folder_->evaluations(), [&](const EvalMetrics& eval) { return eval.step == step; });
      lost = there ? "" : "lost";
    }
    return !parts_.control.broadcast(lost, 0).empty();
  }

  // Waits until the device has ended `step`, reads it and starts telling the other ranks.
  void start_exchange(std::int64_t step) {
    const auto section = at(fmt::format("step {} on the device", step + 1));
    // The next step is enqueued already, so seeing this one end an eighth of a step late costs nothing; waking more
    // often would take time from the computation.
    const auto begin = steady_clock::now();
    while (!trainer_->complete(step)) {
      parts_.device.check();
      parts_.communicator.check();
      std::this_thread::sleep_for(
          std::clamp<steady_clock::duration>((steady_clock::now() - begin) / 8, kShortestPause, kLongestPause));
    }
    StepReport report = trainer_->report(step);
    if (hooks_.on_report) hooks_.on_report(report);
    const StepNote note{report.loss, static_cast<double>(asked_to_stop()), due_by_time() ? 1.0 : 0.0,
                        rank_step(report.times, report.comm_busy)};
    parts_.control.post(note.to_values());
    posted_ = std::move(report);
  }

  // What all ranks said about the step posted last, if any.
  void finish_exchange() {
    if (!posted_.has_value()) return;
    const StepReport report = std::move(*posted_);
    posted_.reset();
    const auto section = at(fmt::format("exchange between ranks behind step {}", report.step + 1));
    const std::vector<double> values = parts_.control.finish();
    double loss = 0;
    std::vector<RankStep> times;
    for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks_); ++rank) {
      const std::span<const double> note = std::span(values).subspan(rank * StepNote::kValues, StepNote::kValues);
      loss += note[0];
      if (note[1] != 0 && result_.stop_signal == 0) {
        result_.stop_signal = static_cast<int>(note[1]);
        stop_rank_ = static_cast<int>(rank);
      }
      times.push_back(RankStep::from(note.subspan(StepNote::kOwnValues)));
    }
    if (values[2] != 0) checkpoint_due_ = true;  // rank 0's
    const std::int64_t step = report.step + 1;   // people and files count from 1
    if (!result_.first_loss.has_value()) result_.first_loss = loss;
    result_.last_loss = loss;
    if (hooks_.on_step) hooks_.on_step({step, loss, report.grad_norm});
    write_step(report, step, loss);
    if (!std::isfinite(loss) || !std::isfinite(report.grad_norm)) {
      // The same numbers on every rank: all of them leave here.
      throw AgreedError(ExitCode::kNonFinite,
                        fmt::format("step {}: the loss or the gradient norm is not finite: training has diverged. {}",
                                    step, after_divergence()));
    }
    if (report.step - result_.first_step >= kWarmupSteps) breakdown_.add(times);
    say_progress({step, loss, report.grad_norm}, times);
  }

  void write_step(const StepReport& report, std::int64_t step, double loss) {
    const double wall_s = std::chrono::duration<double>(report.times.wall).count();
    StepRecord record{
        .run = run_,
        .attempt = static_cast<std::uint32_t>(attempt_),
        .rank = static_cast<std::uint32_t>(rank_),
        .step = step,
        .unix_ns = unix_ns(),
        .monotonic_ns = std::chrono::duration_cast<Nanoseconds>(steady_clock::now().time_since_epoch()).count(),
        .wall = report.times.wall,
        .tokens = inputs_.job.derived.tokens_per_step / ranks_,
        .loss = loss,
        .grad_norm = report.grad_norm,
        .learning_rate = trainer_->learning_rate(report.step),
        .flags = std::isfinite(loss) ? 0 : kStepNonFinite,
        .collectives = static_cast<std::uint32_t>(report.buckets.size()),
        .comm_busy = report.comm_busy};
    for (const comm::Bucket& bucket : trainer_->buckets().buckets) {
      record.comm_bytes += static_cast<std::uint64_t>(bucket.elems()) * size_bytes(trainer_->buckets().wire);
    }
    if (report.times.of(StepClass::kCheckpoint).count() > 0) record.flags |= kStepHasCheckpoint;
    if (report.times.of(StepClass::kOther).count() > 0) record.flags |= kStepHasEval;
    for (std::size_t i = 0; i < kStepClasses; ++i) record.durations[i] = report.times.classes[i];
    records_->append(record);
    if (!leads()) return;
    const double tokens_per_s = static_cast<double>(inputs_.job.derived.tokens_per_step) / wall_s;
    metrics_->append({.step = step,
                      .attempt = attempt_,
                      .loss = loss,
                      .learning_rate = record.learning_rate,
                      .grad_norm = report.grad_norm,
                      .tokens_per_s = tokens_per_s,
                      .mfu = mfu(tokens_per_s, inputs_.job.shape.model_flops_per_token(), hooks_.peak_flops, ranks_),
                      .wall = report.times.wall,
                      .durations = record.durations});
  }

  void evaluate(std::int64_t step, bool in_step) {
    view_.doing("evaluation");
    const auto section = at(fmt::format("held-out loss behind step {}", step), Patience::kLong);
    const auto begin = steady_clock::now();
    const double share = trainer_->evaluate();
    double loss = 0;
    for (const std::string& text : parts_.control.all_gather(fmt::format("{:.17g}", share))) loss += std::stod(text);
    const HeldOut held_out{step, loss};
    result_.last_held_out = held_out;
    if (!result_.best_held_out.has_value() || loss < result_.best_held_out->loss) result_.best_held_out = held_out;
    view_.evaluated(held_out, trainer_->held_out_tokens(), steady_clock::now() - begin);
    if (leads() && (in_step || evaluation_due(step))) {
      metrics_->append(
          EvalMetrics{.step = step, .attempt = attempt_, .val_loss = loss, .tokens = trainer_->held_out_tokens()});
    }
    if (!std::isfinite(loss)) {
      throw AgreedError(
          ExitCode::kNonFinite,
          fmt::format("step {}: the held-out loss is not finite: training has diverged. {}", step, after_divergence()));
    }
  }

  void save(std::int64_t step) {
    const checkpoint::Meta meta{.step = step,
                                .tokens = tokens_behind(step),
                                .attempt = attempt_,
                                .data_cursor = data::to_json(cursor(step)),
                                .tokenizer = data::to_json(inputs_.train->tokenizer()),
                                .model = inputs_.job.shape.to_json(),
                                .choices = choices(),
                                .config = config_to_json(config_),
                                .config_hash = config_hash(config_),
                                .world_size = ranks_};
    view_.doing("checkpoint");
    const auto section = at(fmt::format("checkpoint of step {}", step), Patience::kLong);
    const checkpoint::SaveReport report = as_agreed([&] { return trainer_->save(meta); });
    checkpoint_ = step;
    last_save_ = steady_clock::now();
    checkpoint_due_ = false;
    if (parts_.watch != nullptr) parts_.watch->durable(step);
    view_.saved(step, report.bytes, Seconds(report.durable_s));
  }

  std::int64_t last_step() const {
    return config_.train.stop_at > 0 ? std::min(config_.train.stop_at, config_.train.steps) : config_.train.steps;
  }

  void say_start() {
    if (result_.first_step > 0) checkpoint_ = result_.first_step;
    if (leads()) take_best_held_out();
    const Job& job = inputs_.job;
    const bool apart = parts_.device.target() == DeviceKind::kCuda;  // device memory is not the host's
    const std::size_t device_bytes = trainer_->memory().size_bytes(MemoryKind::kDevice);
    const std::size_t host_bytes = trainer_->memory().size_bytes(MemoryKind::kHost);
    const StartFacts facts{.run_dir = config_.run.dir,
                           .attempt = attempt_,
                           .device = parts_.device.description(),
                           .ranks = ranks_,
                           .model = config_.model.kind,
                           .layers = job.shape.layers,
                           .channels = job.shape.channels,
                           .parameters = models::parameters_of(job.shape).param_elems(),
                           .dtype = job.dtype,
                           .gradient_dtype = job.gradient_dtype,
                           .wire_dtype = job.wire_dtype,
                           .micro_batch = config_.train.micro_batch,
                           .accumulation = job.derived.accumulation,
                           .global_batch = config_.train.global_batch,
                           .sequence = config_.train.sequence,
                           .tokens_per_step = job.derived.tokens_per_step,
                           .device_bytes = apart ? device_bytes : 0,
                           .host_bytes = apart ? host_bytes : device_bytes + host_bytes,
                           .buckets = trainer_->buckets().buckets.size(),
                           .flops_per_token = job.shape.model_flops_per_token(),
                           .peak_flops = hooks_.peak_flops,
                           .first_step = result_.first_step,
                           .last_step = last_step(),
                           .steps = config_.train.steps,
                           .train_tokens = inputs_.train->describe(),
                           .sequences = inputs_.train->sequences(config_.train.sequence),
                           .first_sample = first_sample_,
                           .how_to_stop = stop_text(StopTarget::detect())};
    const Work work{.last_step = facts.last_step,
                    .evaluates = inputs_.val != nullptr,
                    .eval_every = config_.eval.every,
                    .checkpoint_every = config_.checkpoint.every.value_or(0),
                    .checkpoint_interval = checkpoint_interval(),
                    .checkpoint_at_end = config_.checkpoint.at_end};
    view_.start(facts, work, config_.log.every);
    began_ = steady_clock::now();
  }

  // Of the attempts before, up to where this one begins.
  void take_best_held_out() {
    if (!same_held_out_) return;
    for (const EvalMetrics& eval : folder_->evaluations()) {
      if (eval.step > result_.first_step || !std::isfinite(eval.val_loss)) continue;
      if (!result_.best_held_out.has_value() || eval.val_loss < result_.best_held_out->loss) {
        result_.best_held_out = {eval.step, eval.val_loss};
      }
    }
  }

  // After `step` steps.
  NextCheckpoint next_checkpoint(std::int64_t step) const {
    NextCheckpoint next;
    if (step >= last_step()) return next;
    if (const std::int64_t every = config_.checkpoint.every.value_or(0); every > 0) {
      next.step = (step / every + 1) * every;
      if (*next.step > last_step()) next.step = config_.checkpoint.at_end ? std::optional(last_step()) : std::nullopt;
    }
    if (const auto interval = checkpoint_interval()) next.in = *interval - (steady_clock::now() - last_save_);
    return next;
  }

  void say_progress(const StepSummary& step, std::span<const RankStep> times) {
    view_.step(step, trainer_->learning_rate(step.step - 1), times, next_checkpoint(step.step));
  }

  void say_summary() {
    EndFacts facts{.run_dir = config_.run.dir,
                   .steps = config_.train.steps,
                   .stop_at = config_.train.stop_at,
                   .result = result_,
                   .duration = steady_clock::now() - began_,
                   .breakdown = {},
                   .checkpoint = checkpoint_,
                   .generates = inputs_.train->tokenizer() == data::ByteTokenizer::identity(),
                   .command_line = command_line_};
    describe_launch(facts);
    if (breakdown_.steps() > 0) {
      const double tokens_per_s =
          static_cast<double>(inputs_.job.derived.tokens_per_step) / (breakdown_.mean(0).wall_ms / 1e3);
      facts.breakdown = fmt::format("step breakdown, mean of {} steps, {:.0f} tok/s\n{}", breakdown_.steps(),
                                    tokens_per_s, breakdown_.table());
      if (hooks_.peak_flops > 0) {
        facts.breakdown +=
            fmt::format("\nMFU {:.1f} % of {}",
                        100 * mfu(tokens_per_s, inputs_.job.shape.model_flops_per_token(), hooks_.peak_flops, ranks_),
                        peak_name(parts_.device.target(), hooks_.peak_flops));
      }
    }
    view_.end(facts, breakdown_);
  }

  static constexpr std::int64_t kWarmupSteps = 3;  // not part of the summary
  static constexpr std::chrono::microseconds kShortestPause{50};
  static constexpr std::chrono::milliseconds kLongestPause{5};

  const Config& config_;
  RankParts parts_;
  const TrainHooks& hooks_;
  const std::vector<std::string>& command_line_;
  int rank_, ranks_;
  ViewStyle view_style_;
  LineOutput error_output_{STDERR_FILENO,
                           [this](std::int64_t lines) { return LiveView::gap_text(view_style_, lines); }};
  LiveView view_;
  std::optional<RankWatch::Voice> voice_;  // of the watch, through the view
  JobInputs inputs_;
  std::unique_ptr<data::TokenSource> wrapped_source_;
  std::optional<InitialWeights> initial_weights_;  // rank 0, of a new run that starts from others'
  std::optional<WeightsOrigin> origin_;
  std::optional<RunFolder> folder_;
  std::int64_t attempt_ = 1;
  std::uint64_t run_ = 0;
  bool holds_run_ = false;
  std::optional<StepRecordFile> records_;
  std::optional<MetricsFile> metrics_;
  std::unique_ptr<Trainer> trainer_;
  std::optional<StepReport> posted_;
  StepBreakdown breakdown_;
  std::chrono::steady_clock::time_point began_;
  std::int64_t first_sample_ = 0, first_tokens_ = 0;  // of this attempt
  std::optional<std::int64_t> checkpoint_;            // the newest durable one: its step
  steady_clock::time_point last_save_ = steady_clock::now();
  int stop_rank_ = 0;            // that was asked first
  bool checkpoint_due_ = false;  // by time, and all ranks know
  bool same_held_out_ = false;   // as the attempt that wrote the checkpoint
  TrainResult result_;
};

}  // namespace

TrainResult train_rank(const Config& config, RankParts parts, const TrainHooks& hooks,
                       const std::vector<std::string>& command_line) {
  return RankRun(config, parts, hooks, command_line).run();
}

}  // namespace strake::launch
