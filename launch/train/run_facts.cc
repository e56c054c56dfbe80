#include "launch/train/run_facts.h"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/directory.h"
#include "data/byte_tokenizer.h"
#include "launch/report/mfu.h"
#include "models/transformer.h"

namespace strake::launch {

StartFacts start_facts(const Config& config, const RankParts& parts, const OpenRun& run, const RunStart& start,
                       double peak_flops) {
  const Job& job = run.inputs.job;
  return {.run_dir = config.run.dir,
          .attempt = run.folder.attempt,
          .device = parts.device.description(),
          .ranks = parts.control.size(),
          .communicator = run.connection.backend,
          .switches = switches_text(config.comm, run.connection),
          .rank_map = run.ranks,
          .model = config.model.kind,
          .layers = job.shape.layers,
          .channels = job.shape.channels,
          .parameters = models::parameters_of(job.shape).param_elems(),
          .dtype = job.dtype,
          .gradient_dtype = job.gradient_dtype,
          .wire_dtype = job.wire_dtype,
          .micro_batch = config.train.micro_batch,
          .accumulation = job.derived.accumulation,
          .global_batch = config.train.global_batch,
          .sequence = config.train.sequence,
          .tokens_per_step = job.derived.tokens_per_step,
          .device_bytes = run.trainer->memory().size_bytes(MemoryKind::kDevice),
          .host_bytes = run.trainer->memory().size_bytes(MemoryKind::kHost),
          .memory_apart = parts.device.target() == DeviceKind::kCuda,
          .buckets = run.trainer->buckets().buckets.size(),
          .flops_per_token = job.shape.model_flops_per_token(),
          .peak_flops = peak_flops,
          .first_step = start.step,
          .last_step = last_step(config),
          .steps = config.train.steps,
          .train_tokens = run.inputs.train->describe(),
          .sequences = run.inputs.train->sequences(config.train.sequence),
          .first_sample = start.sample,
          .how_to_stop = stop_text(StopTarget::detect())};
}

Work work_of(const Config& config, const CheckpointPolicy& checkpoints) {
  return {.last_step = last_step(config),
          .evaluates = !config.data.val.empty(),
          .eval_every = config.eval.every,
          .checkpoint_every = config.checkpoint.every.value_or(0),
          .checkpoint_interval = checkpoints.interval(),
          .checkpoint_at_end = config.checkpoint.at_end};
}

EndFacts end_facts(const Config& config, const OpenRun& run, const TrainResult& result,
                   const std::vector<std::string>& command_line) {
  EndFacts facts{.run_dir = config.run.dir,
                 .steps = config.train.steps,
                 .stop_at = config.train.stop_at,
                 .result = result,
                 .breakdown = {},
                 .checkpoint = {},
                 .generates = run.inputs.train->tokenizer() == data::ByteTokenizer::identity(),
                 .command_line = command_line};
  describe_launch(facts);
  return facts;
}

std::string breakdown_text(const StepBreakdown& breakdown, const RankParts& parts, const OpenRun& run,
                           double peak_flops) {
  if (breakdown.steps() == 0) return "";
  const Job& job = run.inputs.job;
  const double tokens_per_s = static_cast<double>(job.derived.tokens_per_step) / (breakdown.mean(0).wall_ms / 1e3);
  std::string out = fmt::format("step breakdown, mean of {} steps, {:.0f} tok/s\n{}", breakdown.steps(), tokens_per_s,
                                breakdown.table());
  if (run.bucket_size.prediction.has_value()) {
    // Of the rank that waits least, as it was predicted: the others wait for that rank too.
    double exposed_ms = breakdown.mean(0).of(StepClass::kExposedComm);
    for (int rank = 1; rank < parts.control.size(); ++rank)
      exposed_ms = std::min(exposed_ms, breakdown.mean(rank).of(StepClass::kExposedComm));
    out += fmt::format("\nbuckets of {:.3g} MiB: {:.2f} ms exposed were predicted, {:.2f} measured",
                       run.bucket_size.mib, run.bucket_size.prediction->exposed_ms, exposed_ms);
  }
  if (peak_flops > 0) {
    out += fmt::format("\nMFU {:.1f} % of {}",
                       100 * mfu(tokens_per_s, job.shape.model_flops_per_token(), peak_flops, job.ranks),
                       peak_name(parts.device.target(), peak_flops));
  }
  return out;
}

std::string after_divergence(const Config& config, std::optional<std::int64_t> checkpoint) {
  const std::string lower = "optimizer.learning_rate lower, or optimizer.clip_norm set";
  if (!checkpoint.has_value()) return fmt::format("There is no checkpoint: start again with {}", lower);
  return fmt::format(
      "Resume from the checkpoint of step {} with {}; if that diverges at once, its weights had diverged "
      "already: move {} away to take an older one",
      *checkpoint, lower, (checkpoint_folder(config.run.dir) / checkpoint::step_name(*checkpoint)).string());
}

}  // namespace strake::launch
