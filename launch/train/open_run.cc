#include "launch/train/open_run.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "checkpoint/directory.h"
#include "checkpoint/reader.h"
#include "launch/job/agreement.h"
#include "launch/job/rank_environment.h"
#include "launch/job/rank_memory.h"
#include "launch/job/same_on_all_ranks.h"
#include "launch/run/checkpoint_model.h"
#include "launch/train/kernel_choices.h"
#include "launch/train/strategy_choice.h"

namespace strake::launch {
namespace {

// More do not make a disk faster, nor the page cache of one machine.
constexpr int kMostReadThreads = 8;

// A run that has checkpoints, damaged ones too, is none that begins.
bool begins_with_other_weights(const Config& config, Files& files) {
  const auto checkpoints = checkpoint_folder(config.run.dir);
  return !config.train.init_from.empty() && checkpoint::committed_steps(files, checkpoints).empty() &&
         checkpoint::set_aside_steps(files, checkpoints).empty();
}

// Bits depend on it, so a run that goes on on as many ranks keeps what it began with, unless it is told.
void recall_split(const Config& config, const RankParts& parts, Job& job) {
  if (config.comm.split_embedding != SplitTable::kAuto || job.ranks == 1 || !job.shape.tied_head) return;
  std::string known;
  agree(parts.control, [&] {
    if (!parts.leads()) return;
    const auto found = checkpoint::find_newest(parts.files, checkpoint_folder(config.run.dir));
    if (!found.has_value() || found->manifest.meta.world_size != job.ranks) return;
    const auto choices = nlohmann::json::parse(found->manifest.meta.choices, nullptr, false);
    if (!choices.is_object() || !choices.contains("split_embedding")) return;
    if (const auto& split = choices["split_embedding"]; split.is_boolean()) known = split.dump();
  });
  known = parts.control.broadcast(known, 0);
  if (!known.empty())
    job.split_embedding = known == "true" ? models::SplitEmbedding::kYes : models::SplitEmbedding::kNo;
}

void make_trainer(OpenRun& run, const Config& config, const RankParts& parts) {
  TokenSources sources = run.inputs.sources();
  if (run.wrapped_tokens != nullptr) sources.train = run.wrapped_tokens.get();
  Job& job = run.inputs.job;
  recall_split(config, parts, job);
  StepPlan plan;
  Job planned = job;
  planned.derived.accumulation = std::min(planned.derived.accumulation, kMicroBatchesOfMemory);
  agree(parts.control, [&] { plan = Trainer::plan(planned, parts.communicator, sources, &parts.device); });
  choose_kernels(config, parts);
  run.bucket_size = choose_buckets(job, parts, *sources.train);
  if (!job.config.comm.bucket_mib.has_value()) {
    parts.log.info("{}", run.bucket_size.describe());
    planned.config.comm.bucket_mib = job.config.comm.bucket_mib = run.bucket_size.mib;
    agree(parts.control, [&] { plan = Trainer::plan(planned, parts.communicator, sources, &parts.device); });
  }
  agree(parts.control,
        [&] { run.trainer = std::make_unique<Trainer>(job, parts.device, parts.communicator, sources, &plan); });
  const StrategyChoice strategy = choose_strategy(config.checkpoint.strategy, parts, *run.trainer);
  run.checkpoint_strategy = strategy.kind;
  if (!strategy.why.empty()) parts.log.info("checkpoints: {}, since {}", name_of(strategy.kind), strategy.why);
  const int cores = usable_cores(RankEnvironment::detect());
  as_agreed([&] {
    run.trainer->keep_checkpoints(
        parts.files, parts.control,
        {.directory = checkpoint_folder(config.run.dir),
         .keep = static_cast<int>(config.checkpoint.keep),
         .keep_every = config.checkpoint.keep_every,
         .keep_best = static_cast<int>(config.checkpoint.keep_best),
         .attempt = run.folder.attempt,
         .write = write_options(config, parts, *run.trainer, cores),
         .log = [log = parts.log](std::string_view line) { log.write(LogLevel::kWarning, line); },
         .strategy = run.checkpoint_strategy,
         .paranoid = config.checkpoint.paranoid,
         .read_threads = std::min(cores, kMostReadThreads)});
  });
  take_memory(parts.control, parts.device, *run.trainer);
  parts.log.debug("memory of each rank:\n{}", run.trainer->memory_table().describe());
}

}  // namespace

OpenRun open_run(const Config& config, const RankParts& parts, const TrainHooks& hooks) {
  OpenRun run;
  run.ranks = describe_ranks(parts.control, parts.device);
  run.connection = {.backend = parts.communicator.backend(),
                    .device = parts.device.target(),
                    .ranks = parts.control.size(),
                    .hosts = hosts_of(run.ranks)};
  if (const std::string idle = idle_switches(config.comm, run.connection); parts.leads() && !idle.empty())
    parts.log.warning("{}", idle);
  agree(parts.control, [&] {
    run.inputs = JobInputs::open(config, parts.control.rank(), parts.control.size(), parts.device.target());
    if (hooks.wrap_train_source) run.wrapped_tokens = hooks.wrap_train_source(*run.inputs.train);
  });
  require_same_on_all_ranks(parts.control, run.inputs.identity(), "give every rank the same files");
  agree(parts.control, [&] {  // before it leaves anything in its folder
    if (!parts.leads() || !begins_with_other_weights(config, parts.files)) return;
    run.initial_weights.emplace(parts.files, config.train.init_from, run.inputs.job.shape, run.inputs.cursor(0));
  });
  if (!run.inputs.job.derived.note.empty()) parts.log.info("{}", run.inputs.job.derived.note);
  run.folder = SharedFolder::open(parts.files, parts.control, config);
  agree(parts.control, [&] {
    if (parts.leads()) require_model_of_run(parts.files, config.run.dir, run.inputs.job.shape);
  });
  agree(parts.control,
        [&] { run.log = std::make_unique<StepLog>(parts.files, run.inputs.job, run.folder, hooks.peak_flops); });
  make_trainer(run, config, parts);
  return run;
}

}  // namespace strake::launch
