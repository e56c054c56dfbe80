#include "launch/train/run_account.h"

#include <nlohmann/json.hpp>

#include "data/data_cursor.h"
#include "launch/job/agreement.h"
#include "launch/job/comm_switches.h"
#include "launch/job/rank_environment.h"
#include "launch/run/manifest.h"

namespace strake::launch {

std::string choices_of(const OpenRun& run, const RankParts& parts, double peak_flops) {
  const Job& job = run.inputs.job;
  const comm::BucketPlan& buckets = run.trainer->buckets();
  nlohmann::json out{{"accumulation", job.derived.accumulation},
                     {"buckets", buckets.buckets.size()},
                     {"bucket_size", nlohmann::json::parse(run.bucket_size.to_json())},
                     {"checkpoint_strategy", name_of(run.checkpoint_strategy)},
                     {"communicator", parts.communicator.backend()},
                     {"comm_switches", switches_json(job.config.comm, run.connection)},
                     {"dtype", name_of(job.dtype)},
                     {"gradient_dtype", name_of(job.gradient_dtype)},
                     {"wire_dtype", name_of(buckets.wire)},
                     {"split_embedding", job.split_embedding == models::SplitEmbedding::kYes},
                     {"peak_flops_per_rank", peak_flops},
                     {"warmup_steps", job.derived.warmup_steps},
                     {"min_learning_rate", job.derived.min_learning_rate},
                     {"device", parts.device.target() == DeviceKind::kCuda ? "cuda" : "cpu"}};
  if (const KernelState* kernels = parts.device.kernel_state()) out["kernels"] = kernels->choices();
  return out.dump();
}

void write_run_manifest(const Config& config, const RankParts& parts, const OpenRun& run, const RunStart& start,
                        const std::vector<std::string>& command_line, double peak_flops) {
  agree(parts.control, [&] {
    if (!parts.leads()) return;
    const Manifest manifest{.run = run.folder.run,
                            .attempt = run.folder.attempt,
                            .command_line = command_line,
                            .config = config,
                            .ranks = run.ranks,
                            .mesh = {{parts.control.size(), 1, 1}},
                            .launcher = RankEnvironment::detect().launcher_name(),
                            .choices = choices_of(run, parts, peak_flops),
                            .resumed_from_step = start.step,
                            .initialized_from = start.origin};
    write_manifest(parts.files, config.run.dir, manifest);
  });
}

checkpoint::Meta meta_behind(std::int64_t step, const Config& config, const RankParts& parts, const OpenRun& run,
                             const RunStart& start, double peak_flops) {
  const JobInputs& inputs = run.inputs;
  return {.step = step,
          .tokens = start.tokens_behind(step, config),
          .attempt = run.folder.attempt,
          .data_cursor = data::to_json(inputs.cursor(start.samples_behind(step, config))),
          .tokenizer = data::to_json(inputs.train->tokenizer()),
          .model = inputs.job.shape.to_json(),
          .choices = choices_of(run, parts, peak_flops),
          .config = config_to_json(config),
          .config_hash = config_hash(config),
          .step_metrics = {},  // the step has not ended
          .world_size = parts.control.size()};
}

}  // namespace strake::launch
