#include "launch/train/bucket_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "checkpoint/directory.h"
#include "checkpoint/reader.h"
#include "launch/job/agreement.h"
#include "launch/job/rank_environment.h"
#include "launch/job/rank_memory.h"
#include "launch/report/comm_timeline.h"
#include "launch/run/run_folder.h"
#include "models/transformer.h"

namespace strake::launch {
namespace {

constexpr double kMib = 1 << 20;
constexpr double kClockMs = 1e-4;  // a clock may find that a short reduction took no time
constexpr double kEveryParameterMib = 1e-6, kWholeBucketMib = 65536;
constexpr double kLeastMib = 0x1p-20, kMostMib = 0x1p40;  // a byte, and what 64 bits count
constexpr std::int64_t kTrialSteps = 6;                   // the first has cold caches and is not counted
// Of backward: too little to prefer more buckets for.
constexpr double kIndifferent = 0.01;

constexpr std::array<const char*, 4> kBy{"config", "rule", "measurement", "checkpoint"};
const char* name_of(BucketChoice::By by) { return kBy[static_cast<std::size_t>(by)]; }

// This rank's steps of a short run, and the bytes of its buckets.
struct Trial {
  std::vector<StepTimeline> steps;
  CommBytes bytes;
};

Trial run_trial(Job job, double bucket_mib, bool overlap, const RankParts& parts, data::TokenSource& tokens) {
  job.config.comm.bucket_mib = bucket_mib;
  job.config.comm.overlap = overlap;
  const TokenSources sources{.train = &tokens, .val = nullptr};
  StepPlan plan;
  std::unique_ptr<Trainer> trainer;
  Job planned = job;
  planned.derived.accumulation = std::min(planned.derived.accumulation, kMicroBatchesOfMemory);
  agree(parts.control, [&] {
    plan = Trainer::plan(planned, parts.communicator, sources, &parts.device);
    trainer = std::make_unique<Trainer>(job, parts.device, parts.communicator, sources, &plan);
  });
  take_memory(parts.control, parts.device, *trainer);
  trainer->initialize(usable_cores(RankEnvironment::detect()));
  Trial trial;
  const auto read = [&](std::int64_t step) {
    // Each is progress: all of them may take longer than a run's start is waited for.
    const auto section =
        parts.at(fmt::format("trial step {} of those that bucket sizes are chosen by", step + 1), Patience::kLong);
    while (!trainer->complete(step)) {
      parts.check();
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    if (step > 0) trial.steps.push_back(StepTimeline::of(trainer->report(step)));
  };
  for (std::int64_t step = 0; step < kTrialSteps; ++step) {
    trainer->step(step);
    if (step > 0) read(step - 1);
  }
  trainer->end();
  read(kTrialSteps - 1);
  trial.bytes = CommBytes::of(*trainer);
  return trial;
}

CommTimeline over_ranks(const Trial& mine, comm::Control& control) {
  nlohmann::json values = nlohmann::json::array();
  for (const StepTimeline& step : mine.steps) values.push_back(step.to_values());
  std::vector<std::vector<StepTimeline>> ranks;
  for (const std::string& text : control.all_gather(values.dump())) {
    ranks.emplace_back();
    for (const auto& step : nlohmann::json::parse(text)) {
      ranks.back().push_back(StepTimeline::from_values(step.get<std::vector<double>>()));
    }
  }
  return comm_timeline(ranks, mine.bytes);
}

// Known to all ranks.
bool asked_to_stop(const RankParts& parts) {
  const int mine = parts.watch != nullptr ? parts.watch->asked_to_stop() : 0;
  const std::vector<std::string> signals = parts.control.all_gather(std::to_string(mine));
  return std::ranges::any_of(signals, [](const std::string& signal) { return signal != "0"; });
}

BucketChoice by_rule(const Job& job) {
  const auto bytes = comm::bucket_bytes_by_rule(models::parameters_of(job.shape), job.wire_dtype);
  return {.mib = static_cast<double>(bytes) / kMib, .by = BucketChoice::By::kRule};
}

double length_ms(const CommTimeline& timeline) { return timeline.backward_end_ms - timeline.backward_begin_ms; }

// nullopt: a rank was asked to stop, and the run will not begin.
std::optional<BucketChoice> measured(const Job& job, const RankParts& parts, data::TokenSource& tokens) {
  const ParamLayout layout = models::parameters_of(job.shape, job.split_embedding);
  const double fifth_mib =
      static_cast<double>(layout.total_elems()) * static_cast<double>(size_bytes(job.wire_dtype)) / 5 / kMib;
  struct Planned {
    double bucket_mib;
    bool overlap;
  };
  std::vector<Planned> plan{{kEveryParameterMib, false}, {fifth_mib, false}, {kWholeBucketMib, false}};
  if (job.config.comm.overlap) plan.insert(plan.end(), {{kEveryParameterMib, true}, {fifth_mib, true}});
  parts.log.info("comm.bucket_mib = auto: {} steps before the first tell how large gradient buckets should be",
                 static_cast<std::int64_t>(plan.size()) * kTrialSteps);

  comm::BackwardTimes backward;
  std::vector<comm::TimedReduction> alone, beside;
  double dilated_ms = 0;  // backward with overlap, of all such trials
  int dilated = 0;
  for (const auto& [bucket_mib, overlap] : plan) {
    CommTimeline timeline;
    {
      const auto section = parts.at("the trials that bucket sizes are chosen by", Patience::kLong);
      timeline = over_ranks(run_trial(job, bucket_mib, overlap, parts, tokens), parts.control);
    }
    if (asked_to_stop(parts)) return std::nullopt;
    if (backward.final_ms.empty()) {
      for (const CommTimeline::Bucket& bucket : timeline.buckets) backward.final_ms.push_back(bucket.ready_ms);
      backward.begin_ms = timeline.backward_begin_ms;
      backward.end_ms = timeline.backward_end_ms;
    }
    if (!overlap) {
      const std::vector<double> alone_ms = timeline.alone_ms();
      for (std::size_t i = 0; i < alone_ms.size(); ++i) {
        alone.push_back({timeline.buckets[i].bytes, std::max(alone_ms[i], kClockMs)});
      }
    } else {
      for (const CommTimeline::Bucket& bucket : timeline.buckets) {
        if (bucket.end_ms > timeline.backward_end_ms) break;
        beside.push_back({bucket.bytes, std::max(bucket.end_ms - bucket.begin_ms, kClockMs)});
      }
      dilated_ms += length_ms(timeline);
      ++dilated;
    }
  }
  comm::ReductionCosts costs{.alone = comm::cost_of(alone), .beside = {}};
  // On a link so slow that none is done before backward ends, nothing is known of that.
  costs.beside = beside.empty() ? costs.alone : comm::cost_of(beside);
  const double backward_ms = backward.end_ms - backward.begin_ms;
  if (dilated > 0) {
    backward.dilation = std::max(1.0, dilated_ms / dilated / std::max(backward_ms, kClockMs));
  } else {
    std::ranges::fill(backward.final_ms, backward.end_ms);
  }
  const comm::BucketSize best =
      comm::least_exposed(layout, job.wire_dtype, backward, costs, kIndifferent * backward_ms);
  return BucketChoice{.mib = static_cast<double>(best.bytes) / kMib,
                      .by = BucketChoice::By::kMeasurement,
                      .prediction = BucketChoice::Prediction{
                          .costs = costs, .dilation = backward.dilation, .exposed_ms = best.exposed_ms}};
}

// Of the newest checkpoint, if as many ranks wrote it.
std::optional<BucketChoice> of_checkpoint(const Job& job, Files& files) {
  const auto found = checkpoint::find_newest(files, checkpoint_folder(job.config.run.dir));
  if (!found.has_value() || found->manifest.meta.world_size != job.ranks) return std::nullopt;
  const auto choices = nlohmann::json::parse(found->manifest.meta.choices, nullptr, false);
  if (!choices.is_object() || !choices.contains("bucket_size")) return std::nullopt;
  return BucketChoice::measured_from(choices["bucket_size"].dump());
}

}  // namespace

std::string BucketChoice::describe() const {
  std::string out = fmt::format("gradient buckets of {:.3g} MiB, by {}", mib, name_of(by));
  if (prediction.has_value()) {
    const auto bytes = std::max<std::int64_t>(std::llround(mib * kMib), 1);
    out += fmt::format(
        ": a reduction of one takes {:.3f} ms alone and {:.3f} beside backward, which then takes {:.2f} times as long; "
        "{:.2f} ms a step are predicted exposed",
        prediction->costs.alone.of(bytes), prediction->costs.beside.of(bytes), prediction->dilation,
        prediction->exposed_ms);
  }
  return out;
}

std::string BucketChoice::to_json() const {
  nlohmann::json out{{"mib", mib}, {"by", name_of(by)}};
  if (prediction.has_value()) {
    const auto cost = [](const comm::ReductionCost& of) {
      nlohmann::json sizes = nlohmann::json::array();
      for (const auto& [bytes, ms] : of.by_size) sizes.push_back({bytes, ms});
      return sizes;
    };
    out["predicted_exposed_ms"] = prediction->exposed_ms;
    out["alone_ms"] = cost(prediction->costs.alone);
    out["beside_ms"] = cost(prediction->costs.beside);
    out["backward_dilation"] = prediction->dilation;
  }
  return out.dump();
}

std::optional<BucketChoice> BucketChoice::measured_from(const std::string& json) {
  const auto choice = nlohmann::json::parse(json, nullptr, false);
  for (const char* key : {"mib", "predicted_exposed_ms", "backward_dilation"}) {
    if (!choice.is_object() || !choice.contains(key) || !choice[key].is_number()) return std::nullopt;
  }
  const double mib = choice["mib"];
  if (!(mib >= kLeastMib && mib <= kMostMib)) return std::nullopt;
  // Empty: not such a list.
  const auto cost = [&](const char* key) {
    std::vector<comm::TimedReduction> sizes;
    if (!choice.contains(key) || !choice[key].is_array()) return comm::ReductionCost{};
    for (const auto& each : choice[key]) {
      if (!each.is_array() || each.size() != 2 || !each[0].is_number_integer() || !each[1].is_number())
        return comm::ReductionCost{};
      sizes.push_back({each[0], each[1]});
      if (sizes.back().bytes <= 0 || !(sizes.back().ms > 0)) return comm::ReductionCost{};
    }
    return sizes.empty() ? comm::ReductionCost{} : comm::cost_of(sizes);
  };
  Prediction prediction{.costs = {.alone = cost("alone_ms"), .beside = cost("beside_ms")},
                        .dilation = choice["backward_dilation"],
                        .exposed_ms = choice["predicted_exposed_ms"]};
  if (prediction.costs.alone.by_size.empty() || prediction.costs.beside.by_size.empty()) return std::nullopt;
  return BucketChoice{.mib = mib, .by = By::kMeasurement, .prediction = std::move(prediction)};
}

BucketChoice choose_buckets(const Job& job, const RankParts& parts, data::TokenSource& train_tokens) {
  if (const auto configured = job.config.comm.bucket_mib; configured.has_value()) return {.mib = *configured};
  if (job.ranks == 1 || job.config.train.deterministic) {
    return by_rule(job);
  }
  std::string known;
  agree(parts.control, [&] {
    if (!parts.leads()) return;
    if (const auto choice = of_checkpoint(job, parts.files); choice.has_value()) known = choice->to_json();
  });
  known = parts.control.broadcast(known, 0);
  if (!known.empty()) {
    BucketChoice choice = BucketChoice::measured_from(known).value();
    choice.by = BucketChoice::By::kCheckpoint;
    return choice;
  }
  const std::optional<BucketChoice> mine = measured(job, parts, train_tokens);
  if (!mine.has_value()) return by_rule(job);
  // What rank 0 makes of the same numbers is what counts.
  return BucketChoice::measured_from(parts.control.broadcast(mine->to_json(), 0)).value();
}

}  // namespace strake::launch
