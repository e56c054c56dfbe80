#include "launch/plan/planner.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "comm/plan_communicator.h"
#include "comm/staged/staged_communicator.h"
#include "launch/job/job_inputs.h"
#include "launch/plan/gpu_experience.h"
#include "launch/report/comm_timeline.h"
#include "launch/train/strategy_choice.h"
#include "runtime/base/check.h"

namespace strake::launch {
namespace {

// The first, one between, and the last.
constexpr std::int64_t kTypicalMicroBatches = 3;

// As many tokens as a source must have, and none that could be read.
class NoTokens final : public data::TokenSource {
 public:
  explicit NoTokens(std::int64_t sequence) : tokens_(sequence + 1) {}
  std::int64_t tokens() const override { return tokens_; }
  void read(std::int64_t, std::span<std::int32_t>) override { check_failed("read", "a plan reads no tokens"); }
  std::string describe() const override { return "no tokens"; }

 private:
  std::int64_t tokens_;
};

// "h.12.mlp.gelu" -> "h.*.mlp.gelu"
std::string of_any_layer(const std::string& name) {
  constexpr std::string_view kLayer = "h.";
  const std::size_t end = name.find_first_not_of("0123456789", kLayer.size());
  const bool numbered = name.starts_with(kLayer) && end != std::string::npos && end > kLayer.size();
  return numbered ? "h.*" + name.substr(end) : name;
}

void read_peak(const MemoryPlan& memory, const Recording& recording, RankPlan& plan) {
  if (memory.blocks.empty()) return;
  plan.fullest_operation = recording.entries[memory.peak_entry].name;
  plan.alive_bytes = memory.peak_bytes;
  std::map<std::string, PeakShare> shares;
  for (const MemoryBlock* block : memory.at_peak()) {
    PeakShare& share = shares[of_any_layer(block->name)];
    ++share.count;
    share.size_bytes += block->size_bytes;
  }
  for (auto& [name, share] : shares) {
    share.name = name;
    plan.peak.push_back(share);
  }
  std::ranges::stable_sort(plan.peak, std::ranges::greater(), &PeakShare::size_bytes);
}

// FLOPs of the model's products and of what is recomputed; bytes forward, backward, of the optimizer, to the device and
// to other ranks.
using Costs = std::array<double, 7>;

Costs costs_of(const Recording& recording, int ranks) {
  double flops = 0, recomputed_flops = 0, sent_bytes = 0;
  for (const RecordedEntry& entry : recording.entries) {
    // Of collectives that is what adds up gradients, which no rate of matrix products is meant for.
    if (entry.phase != Phase::kComm) (entry.recomputed ? recomputed_flops : flops) += entry.flops;
    const bool between_ranks = entry.phase == Phase::kComm && entry.kernel != "cast";
    if (between_ranks && ranks > 1) sent_bytes += entry.bytes;
  }
  return {flops,
          recomputed_flops,
          recording.bytes(Phase::kForward),
          recording.bytes(Phase::kBackward),
          recording.bytes(Phase::kOptimizer),
          recording.bytes(Phase::kInput),
          sent_bytes};
}

// With `more` micro-batches than `many` has, which has one more than `few`, and more than two: the first and the last
// are ones of their own, those between are alike.
Costs with_more(Costs many, const Costs& few, std::int64_t more) {
  for (std::size_t i = 0; i < many.size(); ++i) many[i] += static_cast<double>(more) * (many[i] - few[i]);
  return many;
}

// Do the ranks send each other what they send through host memory?
bool is_staged(const PlanTarget& target, const Config& config) {
  return config.comm.backend == CommBackend::kStaged && target.ranks > 1;
}

// The driver's and the libraries' part, and marks that are estimates.
void complete_table(const PlanTarget& target, const Config& config, MemoryTable& table) {
  if (target.kind != DeviceKind::kCuda) return;
  std::optional<std::size_t> measured_bytes;
  if (target.device != nullptr) {
    measured_bytes = target.device->driver_bytes();
  } else {
    for (MemoryRow& row : table.rows) row.estimated = row.estimated || row.name == "workspace";
  }
  const int joined_ranks = is_staged(target, config) ? 1 : target.ranks;  // by NCCL
  const std::size_t context_bytes = measured_bytes.has_value()
                                        ? *measured_bytes + expected_communicator_bytes(joined_ranks)
                                        : expected_context_bytes(joined_ranks);
  table.rows.push_back(
      {kContextAndLibraries, MemoryKind::kDevice, context_bytes, !measured_bytes.has_value() || joined_ranks > 1});
}

}  // namespace

std::size_t RankPlan::needed_bytes() const {
  const std::size_t host_bytes = target.kind == DeviceKind::kCuda ? 0 : memory.size_bytes(MemoryKind::kHost);
  return memory.size_bytes(MemoryKind::kDevice) + host_bytes;
}

bool Planner::possible(const Config& config) const {
  try {
    job_of(config, 0, target_.ranks, target_.kind, vocab_);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

const std::vector<checkpoint::PlannedRange>& Planner::first_shard(std::vector<checkpoint::HeldRange> held) {
  if (shard_of_ != held) {
    const std::vector<std::vector<checkpoint::HeldRange>> held_by_rank(static_cast<std::size_t>(target_.ranks), held);
    first_shard_ = checkpoint::plan_shards(held_by_rank).front();
    shard_of_ = std::move(held);
  }
  return first_shard_;
}

RankPlan Planner::plan(const Config& config, std::int64_t most_micro_batches) {
  RankPlan plan;
  plan.target = target_;
  plan.job = job_of(config, 0, target_.ranks, target_.kind, vocab_);
  comm::PlanCommunicator communicator(
      0, target_.ranks, is_staged(target_, config) ? comm::StagedCommunicator::staging_bytes_of(target_.ranks) : 0);
  NoTokens train(config.train.sequence), val(config.train.sequence);
  const TokenSources sources{&train, config.data.val.empty() ? nullptr : &val};

  const auto new_device = [this] {
    return target_.device != nullptr ? std::make_unique<PlanDevice>(*target_.device)
                                     : std::make_unique<PlanDevice>(target_.kind);
  };
  const auto declare = [&](std::int64_t micro_batches) {
    Job declared = plan.job;
    declared.derived.accumulation = micro_batches;
    const auto declaring = new_device();
    return Trainer::plan(declared, communicator, sources, *declaring);
  };
  const std::int64_t wanted = std::min(plan.job.derived.accumulation, most_micro_batches);
  StepPlan step = declare(std::min(wanted, kTypicalMicroBatches));
  Costs costs = costs_of(step.recording, target_.ranks);
  if (wanted > kTypicalMicroBatches) {
    const StepPlan few = declare(kTypicalMicroBatches - 1);
    costs = with_more(costs, costs_of(few.recording, target_.ranks), wanted - kTypicalMicroBatches);
  }
  if (target_.kind == DeviceKind::kCuda && target_.device == nullptr) {
    step.workspace_bytes = expected_workspace_bytes(plan.job);
  }
  const auto placing = new_device();
  Trainer trainer(plan.job, *placing, communicator, sources, &step);
  trainer.reserve_checkpoints(planned_strategy(config.checkpoint.strategy), config.checkpoint.paranoid,
                              first_shard(checkpoint::held_ranges(trainer.state_table())));

  plan.parameters = models::parameters_of(plan.job.shape).param_elems();
  plan.buckets = trainer.buckets();
  plan.split_rows_bytes = CommBytes::of(trainer).split_rows;
  plan.at_end = describe_at_end(trainer);
  plan.memory = trainer.memory_table();
  complete_table(target_, config, plan.memory);
  plan.flops = costs[0];
  plan.recomputed_flops = costs[1];
  plan.bytes = {costs[2], costs[3], costs[4], costs[5], costs[6]};
  read_peak(step.activations, step.recording, plan);
  if (target_.schedule) plan.schedule = step.recording.describe();
  return plan;
}

}  // namespace strake::launch
