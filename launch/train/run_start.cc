#include "launch/train/run_start.h"

#include <fmt/format.h>

#include <string>

#include "data/data_cursor.h"
#include "launch/job/agreement.h"
#include "launch/job/rank_environment.h"
#include "launch/run/manifest.h"
#include "launch/run/resume.h"
#include "launch/run/step_numbers.h"

namespace strake::launch {
namespace {

// Imported weights have an empty cursor: no data went into them here, and any of their tokenizer may.
void require_data_of(const checkpoint::Meta& meta, const Config& config, const JobInputs& inputs) {
  if (meta.data_cursor.empty()) {
    data::require_same_tokenizer(data::tokenizer_from_json(meta.tokenizer, "tokenizer of the checkpoint"),
                                 inputs.cursor(0));
    return;
  }
  const data::DataCursor saved = data::cursor_from_json(meta.data_cursor);
  if (saved.seed != static_cast<std::uint64_t>(config.run.seed) || saved.sequence != config.train.sequence) {
    throw ConfigError(
        fmt::format("{} was begun with run.seed = {} and train.sequence = {}, which order its samples; set them "
                    "so, or start in a new run.dir",
                    config.run.dir, saved.seed, saved.sequence));
  }
  data::require_same_data(saved, inputs.cursor(0));
}

// Is the held-out loss that of the run that wrote `saved`?
bool evaluates_the_same(const std::string& saved, const Config& config) {
  if (saved.empty()) return false;
  const Config before = config_from_json(saved);
  return before.data.val == config.data.val && before.eval.batches == config.eval.batches &&
         before.train.micro_batch == config.train.micro_batch && before.train.sequence == config.train.sequence;
}

// What the run was started from stays in its manifests. The key counts for a new run only.
std::optional<WeightsOrigin> recall_origin(const Config& config, const RankParts& parts) {
  if (!parts.leads()) return std::nullopt;
  const EarlierAttempt earlier = read_earlier_attempt(parts.files, config.run.dir);
  if (!config.train.init_from.empty() && config.train.init_from != earlier.init_from) {
    parts.log.warning("train.init_from = {} is ignored: {} has a checkpoint and goes on from its own weights",
                      config.train.init_from, config.run.dir);
  }
  return earlier.initialized_from;
}

// How this rank came by its state, and so, but for a few bytes, every other.
std::string describe(const checkpoint::LoadReport& loaded) {
  const auto mib = [](std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  return fmt::format(
      "{:.1f} MiB of state are here in {:.2f} s: {:.1f} MiB were read of {} file{} and verified in {:.2f} s{}",
      mib(loaded.held_bytes), loaded.seconds, mib(loaded.read_bytes), loaded.files, loaded.files == 1 ? "" : "s",
      loaded.read_s, loaded.passed_on ? "; what ranks hold alike one has read and passed on" : "");
}

// A run that ended between its checkpoint and the line of that step has a hole in metrics.jsonl, which nobody would do
// again: the checkpoint tells what belongs there.
void close_hole(const checkpoint::Meta& meta, const RankParts& parts, const OpenRun& run) {
  agree(parts.control, [&] {
    if (!parts.leads()) return;
    const std::optional<StepNumbers> numbers = step_numbers_from_json(meta.step_metrics);
    if (numbers.has_value() && run.folder.taken->attempt_of(meta.step) != meta.attempt)
      run.log->restore(meta.step, meta.attempt, *numbers);
  });
}

RunStart resumed(const checkpoint::Meta& meta, const Config& config, const RankParts& parts, const OpenRun& run) {
  agree(parts.control, [&] { require_data_of(meta, config, run.inputs); });
  close_hole(meta, parts, run);
  const bool imported = meta.data_cursor.empty();
  const RunStart start{.step = meta.step,
                       .sample = imported ? 0 : data::cursor_from_json(meta.data_cursor).next_sample,
                       .tokens = meta.tokens,
                       .same_held_out = evaluates_the_same(meta.config, config),
                       .origin = recall_origin(config, parts)};
  if (imported) {
    parts.log.info("starting from the weights that were imported into {}", config.run.dir);
  } else {
    parts.log.info("resumed behind step {} of {}", meta.step, config.run.dir);
  }
  parts.log.info("{}", describe(run.trainer->checkpointer().loaded()));
  for (const std::string& line : changes_since(meta.config, config, meta.step, start.sample)) {
    parts.log.info("changed since the checkpoint: {}", line);
  }
  return start;
}

RunStart initialized(const Config& config, const RankParts& parts, OpenRun& run) {
  if (config.checkpoint.resume == Resume::kMust) {
    throw AgreedError(ExitCode::kNoCheckpoint,
                      fmt::format("checkpoint.resume = true, but {} holds no checkpoint; set checkpoint.resume = auto "
                                  "to start from the beginning",
                                  config.run.dir));
  }
  if (run.folder.holds_run && parts.leads())
    parts.log.warning("{} holds a run without a checkpoint: starting from the beginning", config.run.dir);
  if (config.train.init_from.empty()) {
    run.trainer->initialize(usable_cores(RankEnvironment::detect()));
    return {};
  }
  RunStart start;
  start.origin = as_agreed([&] {
    return InitialWeights::load(parts.files, parts.control, run.initial_weights ? &*run.initial_weights : nullptr,
                                *run.trainer);
  });
  parts.log.info("starting from the weights of step {} of {}: optimizer, schedule and data begin anew",
                 start.origin->step, start.origin->checkpoint);
  return start;
}

}  // namespace

RunStart resume_or_initialize(const Config& config, const RankParts& parts, OpenRun& run) {
  const std::string model = run.inputs.job.shape.to_json();
  const std::optional<checkpoint::Meta> meta = as_agreed([&] { return run.trainer->load_newest(model); });
  RunStart start = meta.has_value() ? resumed(*meta, config, parts, run) : initialized(config, parts, run);
  run.trainer->seek(start.sample);
  return start;
}

}  // namespace strake::launch
