#include "launch/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "launch/job/model_shape.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/home_path.h"
#include "runtime/base/text.h"

namespace strake::launch {
namespace {

constexpr std::int64_t kMany = 1'000'000'000'000;
constexpr std::int64_t kMostCtas = 64;  // NCCL's limit
constexpr std::int64_t kMostSpareSms = 1024;
constexpr std::int64_t kMostWriters = 64;
constexpr auto kNoEffect = ConfigReader::Effect::kNone;

// The table of keys. Order is that of the documentation and of the JSON.
void bind_keys(ConfigReader& reader, Config& c) {
  reader.bind("run.dir", c.run.dir, "Run folder: metrics, step records, checkpoints.", kNoEffect);
  reader.bind("run.seed", c.run.seed, {0, kMany}, "Initial weights and the order of samples follow from it.");
  reader.bind<DeviceChoice>(
      "run.device", c.run.device,
      {{"auto", DeviceChoice::kAuto}, {"cpu", DeviceChoice::kCpu}, {"cuda", DeviceChoice::kCuda}},
      "Device of every rank; auto: GPUs, or the CPU where no rank has one and none was used before.", kNoEffect);

  reader.bind("run.hang_s", c.run.hang_s, {0, 1e9},
              "Seconds without progress after which a rank ends the job, four times as long while it starts, writes a "
              "checkpoint or evaluates; 0: never.",
              kNoEffect);

  reader.bind("run.kernel_cache", c.run.kernel_cache,
              "GPUs: folder in which algorithms that were chosen by timing are kept for later runs; auto: strake in "
              "the user's cache folder; none: each new run times them.",
              kNoEffect);

  reader.bind("model.kind", c.model.kind, "Model family: gpt2, llama or qwen2.");
  reader.bind("model.layers", c.model.layers, {1, 1000}, "Transformer blocks.");
  reader.bind("model.channels", c.model.channels, {1, 1 << 20}, "Width; a multiple of model.heads.");
  reader.bind("model.heads", c.model.heads, {1, 1 << 12}, "Attention heads.");
  reader.bind("model.vocab", c.model.vocab, {0, 1 << 24}, "Token ids; 0: as the token file's tokenizer has.");
  reader.bind("model.kv_heads", c.model.kv_heads, {1, 1 << 12},
              "Heads of keys and values, which groups of model.heads share; auto: as many as model.heads.");
  reader.bind("model.head_size", c.model.head_size, {1, 1 << 12}, "Channels of a head; auto: channels / heads.");
  reader.bind("model.mlp_channels", c.model.mlp_channels, {1, 1 << 24},
              "Width of the MLP; auto: gpt2 4 x channels, else 8/3 x channels rounded up.");
  reader.bind("model.norm_epsilon", c.model.norm_epsilon, {1e-30, 1}, "Of the norms; auto: 1e-5, qwen2 1e-6.");
  reader.bind("model.rope_theta", c.model.rope_theta, {1, 1e12},
              "Base of rotary positions; auto: llama 10000, qwen2 1000000.");
  reader.bind("model.rope_scaling", c.model.rope_scaling,
              "Llama 3's scaling of rotary positions, \"llama3:FACTOR,LOW,HIGH,ORIGINAL\"; empty: none.");
  reader.bind<std::optional<bool>>("model.tied_head", c.model.tied_head,
                                   {{"auto", std::nullopt}, {"true", true}, {"false", false}},
                                   "The token table is the head too; auto: gpt2 true, else false.");

  reader.bind("data.train", c.data.train,
              "Token files to train on, in this order; * matches any part of a name (data/shard-*.bin).");
  reader.bind("data.val", c.data.val, "Token files for the held-out loss, as data.train; empty: none.", kNoEffect);
  reader.bind<std::optional<data::TokenType>>(
      "data.dtype", c.data.dtype,
      {{"auto", std::nullopt}, {"u16", data::TokenType::kU16}, {"u32", data::TokenType::kU32}},
      "Ids of token files without header and sidecar; auto: refuse such files.");

  reader.bind("train.steps", c.train.steps, {1, kMany}, "Optimizer steps of the whole run.");
  reader.bind("train.stop_at", c.train.stop_at, {0, kMany}, "End after this step, with a checkpoint; 0: off.",
              kNoEffect);
  reader.bind("train.global_batch", c.train.global_batch, {1, 1 << 24}, "Sequences a step, over all ranks.");
  reader.bind("train.micro_batch", c.train.micro_batch, {1, 1 << 20}, "Sequences that a rank computes at once.");
  reader.bind("train.sequence", c.train.sequence, {1, 1 << 24}, "Tokens a sequence.");
  reader.bind("train.init_from", c.train.init_from,
              "Run folder or checkpoint whose weights a new run starts from; empty: random ones.");
  reader.bind<ComputeType>("train.dtype", c.train.dtype,
                           {{"auto", ComputeType::kAuto}, {"f32", ComputeType::kF32}, {"bf16", ComputeType::kBF16}},
                           "What the model computes in; auto: bf16 on GPUs, f32 on the CPU.");
  reader.bind<ComputeType>("train.gradient_dtype", c.train.gradient_dtype,
                           {{"auto", ComputeType::kAuto}, {"f32", ComputeType::kF32}, {"bf16", ComputeType::kBF16}},
                           "What gradients are kept in; auto: as train.dtype, f32 when micro-batches add up.");
  reader.bind<models::Recompute>("train.recompute", c.train.recompute,
                                 {{"none", models::Recompute::kNone},
                                  {"norm_activation", models::Recompute::kNormActivation},
                                  {"block", models::Recompute::kBlock}},
                                 "What backward computes again instead of keeping it: less memory, no other bits.",
                                 kNoEffect);
  reader.bind<models::Shard>(
      "train.shard", c.train.shard, {{"none", models::Shard::kNone}, {"optimizer", models::Shard::kOptimizer}},
      "What each rank keeps a part of: of the optimizer its state (ZeRO-1), less memory.", kNoEffect);
  reader.bind("train.deterministic", c.train.deterministic, "GPUs: only algorithms that repeat their bits.");

  reader.bind("optimizer.learning_rate", c.optimizer.learning_rate, {0, 10}, "Peak of the cosine schedule.");
  reader.bind("optimizer.min_learning_rate", c.optimizer.min_learning_rate, {0, 10},
              "Where the schedule ends; auto: by optimizer.min_learning_rate_ratio.");
  reader.bind("optimizer.min_learning_rate_ratio", c.optimizer.min_learning_rate_ratio, {0, 1},
              "The same as a part of optimizer.learning_rate; auto: a tenth.");
  reader.bind("optimizer.warmup_steps", c.optimizer.warmup_steps, {0, kMany},
              "Steps of linear warm-up, a tenth of the run if the run is shorter; auto: by optimizer.warmup_ratio.");
  reader.bind("optimizer.warmup_ratio", c.optimizer.warmup_ratio, {0, 0.999999},
              "The same as a part of train.steps; auto: 100 steps, but a tenth of the run at most.");
  reader.bind("optimizer.beta1", c.optimizer.beta1, {0, 0.999999}, "Decay of AdamW's first moment.");
  reader.bind("optimizer.beta2", c.optimizer.beta2, {0, 0.999999}, "Decay of AdamW's second moment.");
  reader.bind("optimizer.epsilon", c.optimizer.epsilon, {1e-30, 1}, "AdamW's epsilon.");
  reader.bind("optimizer.weight_decay", c.optimizer.weight_decay, {0, 10}, "On matrices only.");
  reader.bind("optimizer.clip_norm", c.optimizer.clip_norm, {0, 1e12}, "Largest gradient norm; 0: no clipping.");

  reader.bind<CommBackend>(
      "comm.backend", c.comm.backend,
      {{"auto", CommBackend::kAuto}, {"nccl", CommBackend::kNccl}, {"staged", CommBackend::kStaged}},
      "What connects the ranks; auto: NCCL between GPUs, MPI between CPU ranks; staged: through host memory, slow, for "
      "ranks that share a GPU.",
      kNoEffect);
  reader.bind("comm.overlap", c.comm.overlap, "Reduce gradients while backward runs.", kNoEffect);
  reader.bind("comm.bucket_mib", c.comm.bucket_mib, {1e-6, 65536},
              "Size of a gradient bucket; auto: the one that a few trial steps predict to hide best.", kNoEffect);
  reader.bind<ComputeType>("comm.wire_dtype", c.comm.wire_dtype,
                           {{"auto", ComputeType::kAuto}, {"f32", ComputeType::kF32}, {"bf16", ComputeType::kBF16}},
                           "What gradients are summed over ranks in; auto: as they are kept, but f32 above 8 ranks.");
  reader.bind("comm.min_ctas", c.comm.min_ctas, {1, kMostCtas},
              "CTAs (thread blocks, one a multiprocessor) of an NCCL collective, at least; auto: NCCL's choice.",
              kNoEffect);
  reader.bind("comm.max_ctas", c.comm.max_ctas, {1, kMostCtas},
              "CTAs of an NCCL collective, at most: fewer leave more multiprocessors to backward; auto: NCCL's choice.",
              kNoEffect);
  reader.bind<CommBuffers>(
      "comm.buffers", c.comm.buffers,
      {{"plain", CommBuffers::kPlain},
       {"registered", CommBuffers::kRegistered},
       {"symmetric", CommBuffers::kSymmetric}},
      "Memory of gradients and weights that NCCL moves: as it is; registered (NCCL 2.19); or mapped "
      "alike by all GPUs of a host, for kernels that need few CTAs (NCCL 2.27).",
      kNoEffect);
  reader.bind(
      "comm.copy_engines", c.comm.copy_engines,
      "Gather weights by copy engines, which take no multiprocessor: GPUs of one host, comm.buffers = symmetric, "
      "train.shard = optimizer (NCCL 2.28).",
      kNoEffect);
  reader.bind("comm.spare_sms", c.comm.spare_sms, {0, kMostSpareSms},
              "Multiprocessors that cuBLASLt's products leave free where a collective may run beside them; other "
              "algorithms may give other bits.");
  reader.bind<SplitTable>(
      "comm.split_embedding", c.comm.split_embedding,
      {{"auto", SplitTable::kAuto}, {"true", SplitTable::kAlways}, {"false", SplitTable::kNever}},
      "Of a tied token table reduce the head's gradient early, and of the tokens' only rows; auto: where that is fewer "
      "bytes at the end of backward.");

  reader.bind("checkpoint.every", c.checkpoint.every, {0, kMany},
              "Steps between checkpoints; auto: by time (checkpoint.every_minutes); 0: none while the run goes on.",
              kNoEffect);
  reader.bind(
      "checkpoint.every_minutes", c.checkpoint.every_minutes, {1e-6, 1e6},
      "Minutes between checkpoints, where checkpoint.every is auto; as an argument, also in place of the file's steps.",
      kNoEffect);
  reader.bind("checkpoint.at_end", c.checkpoint.at_end, "Keep the last step of a run that ends.", kNoEffect);
  reader.bind<Resume>("checkpoint.resume", c.checkpoint.resume,
                      {{"auto", Resume::kAuto}, {"true", Resume::kMust}, {"false", Resume::kNever}},
                      "auto: resume if the run folder holds a run; true: must; false: refuse a folder in use.",
                      kNoEffect);
  reader.bind("checkpoint.keep", c.checkpoint.keep, {1, 1 << 20}, "Newest valid checkpoints that stay.", kNoEffect);
  reader.bind("checkpoint.keep_every", c.checkpoint.keep_every, {0, kMany},
              "Beside them checkpoints of steps that are multiples of this stay; 0: none.", kNoEffect);
  reader.bind("checkpoint.keep_best", c.checkpoint.keep_best, {0, 1 << 20},
              "Beside them so many with the lowest held-out loss of their own step stay; where both are due, that is "
              "then computed before the checkpoint is written.",
              kNoEffect);
  reader.bind<CheckpointStrategy>("checkpoint.strategy", c.checkpoint.strategy,
                                  {{"auto", CheckpointStrategy::kAuto},
                                   {"sync", CheckpointStrategy::kSync},
                                   {"pinned", CheckpointStrategy::kPinned},
                                   {"lazy", CheckpointStrategy::kLazy},
                                   {"device", CheckpointStrategy::kDevice}},
                                  "What training waits for while a checkpoint is written; sync: all of it; pinned: the "
                                  "copy to the host; lazy: the next update of the weights does; device: a copy on the "
                                  "device; auto: lazy on the CPU, sync on GPUs.",
                                  kNoEffect);
  reader.bind<IfBusy>("checkpoint.if_busy", c.checkpoint.if_busy, {{"wait", IfBusy::kWait}, {"skip", IfBusy::kSkip}},
                      "A checkpoint that is due while the one before is still written; wait: as long as the interval "
                      "or 10 s, then it is left out; skip: it is left out. The last one always waits.",
                      kNoEffect);
  reader.bind(
      "checkpoint.writers", c.checkpoint.writers, {1, kMostWriters},
      "Threads of each rank that write its file; auto: one on the CPU, where training wants the cores; half a rank's "
      "cores, up to four, beside a GPU.",
      kNoEffect);
  reader.bind<std::optional<bool>>(
      "checkpoint.direct_io", c.checkpoint.direct_io, {{"auto", std::nullopt}, {"true", true}, {"false", false}},
      "Write past the page cache (O_DIRECT), where the file system can; auto: where a rank's file has 64 MiB and more.",
      kNoEffect);
  reader.bind(
      "checkpoint.paranoid", c.checkpoint.paranoid,
      "Compare what a checkpoint is about to hold with fingerprints that the device made of weights and moments "
      "behind the update; a difference is a mistake of the program and ends the run.",
      kNoEffect);

  reader.bind("eval.every", c.eval.every, {0, kMany}, "Steps between held-out losses; 0: after the last step only.",
              kNoEffect);
  reader.bind("eval.batches", c.eval.batches, {1, kMany},
              "Batches of a held-out loss, shared out to the ranks: at least one each.", kNoEffect);

  reader.bind("log.every", c.log.every, {1, kMany}, "Steps between progress lines.", kNoEffect);
  reader.bind<LogFormat>(
      "log.format", c.log.format,
      {{"auto", LogFormat::kAuto}, {"bar", LogFormat::kBar}, {"lines", LogFormat::kLines}, {"json", LogFormat::kJson}},
      "Progress: a bar, lines with their time, JSON; auto: a bar on a terminal, else lines.", kNoEffect);

  reader.bind("debug.order_check", c.debug.order_check, "Check every access against stream order and events.",
              kNoEffect);
  reader.bind("debug.jitter_us", c.debug.jitter_us, {0, 1'000'000}, "Random delay before operations, up to this.",
              kNoEffect);
}

// Of two keys that say one thing in two ways the later one counts, so that an argument replaces what the file says in
// the other way. Two of the same place contradict each other.
template <typename Absolute, typename Relative>
void settle(ConfigReader& reader, std::string_view absolute_key, std::optional<Absolute>& absolute,
            std::string_view ratio_key, std::optional<Relative>& ratio) {
  if (!absolute || !ratio || !reader.sound({absolute_key, ratio_key})) return;
  if (reader.source(absolute_key) == reader.source(ratio_key)) {
    reader.problem(ratio_key, fmt::format("is set, and so is {}; remove one of them", absolute_key));
  } else if (reader.source(absolute_key) < reader.source(ratio_key)) {
    absolute.reset();
  } else {
    ratio.reset();
  }
}

// Divisors of n in ascending order, those nearest to what was given; of two as near the smaller one first.
std::vector<std::int64_t> divisors_near(std::int64_t given, std::int64_t n) {
  constexpr std::size_t kMost = 4;
  std::vector<std::int64_t> divisors;
  for (std::int64_t d = 1; d * d <= n; ++d) {
    if (n % d != 0) continue;
    divisors.push_back(d);
    if (d * d != n) divisors.push_back(n / d);
  }
  std::sort(divisors.begin(), divisors.end(), [&](std::int64_t a, std::int64_t b) {
    return std::pair(std::abs(a - given), a) < std::pair(std::abs(b - given), b);
  });
  divisors.resize(std::min(divisors.size(), kMost));
  std::sort(divisors.begin(), divisors.end());
  return divisors;
}

// What only some families have.
void check_family(ConfigReader& reader, const Config::Model& m) {
  if (const auto kinds = model_kinds(); std::ranges::find(kinds, m.kind) == kinds.end()) {
    reader.problem("model.kind",
                   fmt::format("{} is not known; write \"{}\"", json_quote(m.kind), fmt::join(kinds, "\" or \"")));
    return;
  }
  if (m.kind != "gpt2") return;
  const auto refuse = [&](std::string_view key, bool is_set) {
    if (is_set && reader.sound({key})) {
      reader.problem(key, "gpt2 has no such choice; remove it, or set model.kind = \"llama\"");
    }
  };
  refuse("model.kv_heads", m.kv_heads.has_value() && *m.kv_heads != m.heads);
  refuse("model.rope_theta", m.rope_theta.has_value());
  refuse("model.rope_scaling", !m.rope_scaling.empty());
  refuse("model.tied_head", m.tied_head == false);
}

void check_model(ConfigReader& reader, const Config::Model& m) {
  if (reader.sound({"model.kind"})) check_family(reader, m);
  if (reader.sound({"model.channels", "model.heads", "model.head_size"}) && !m.head_size.has_value() &&
      m.channels % m.heads != 0) {
    reader.problem("model.channels",
                   fmt::format("{} cannot be split over model.heads = {}; use model.heads = {}, or model.channels = {}",
                               m.channels, m.heads, fmt::join(divisors_near(m.heads, m.channels), ", "),
                               (m.channels / m.heads + 1) * m.heads));
  }
  if (m.kv_heads.has_value() && reader.sound({"model.heads", "model.kv_heads"}) && m.heads % *m.kv_heads != 0) {
    reader.problem("model.kv_heads", fmt::format("{} does not divide model.heads = {}; use {}", *m.kv_heads, m.heads,
                                                 fmt::join(divisors_near(*m.kv_heads, m.heads), ", ")));
  }
  const std::int64_t head_size = m.head_size.value_or(m.channels / m.heads);
  if (m.kind != "gpt2" && head_size % 2 != 0 && reader.sound({"model.heads", "model.channels", "model.head_size"})) {
    reader.problem("model.head_size",
                   fmt::format("{} is odd, and rotary positions turn pairs of channels; use {}", head_size,
                               head_size > 1 ? fmt::format("{} or {}", head_size - 1, head_size + 1) : "2"));
  }
  if (!m.rope_scaling.empty() && reader.sound({"model.rope_scaling"}) && !rotary_scaling_from(m.rope_scaling)) {
    reader.problem("model.rope_scaling", fmt::format("{} is no scaling; write \"llama3:8,1,4,8192\", or \"\" for none",
                                                     json_quote(m.rope_scaling)));
  }
}

void check_contradictions(ConfigReader& reader, const Config& c) {
  if (reader.sound({"run.kernel_cache"}) && c.run.kernel_cache.empty())
    reader.problem("run.kernel_cache", "is empty; write auto, none or the path of a folder");
  if (reader.sound({"run.dir"}) && c.run.dir.empty()) reader.problem("run.dir", "is empty; write the path of a folder");
  check_model(reader, c.model);
  if (reader.sound({"data.train"}) && c.data.train.empty()) {
    reader.problem("data.train", "is not set; write the path of a token file, made by `strake data prepare`");
  }
  if (reader.sound({"eval.every", "data.val"}) && c.eval.every > 0 && c.data.val.empty()) {
    reader.problem("eval.every", fmt::format("{} needs held-out data; set data.val, or eval.every = 0", c.eval.every));
  }
  if (reader.sound({"checkpoint.keep_best", "eval.every"}) && c.checkpoint.keep_best > 0 && c.eval.every == 0) {
    reader.problem("checkpoint.keep_best",
                   fmt::format("{} needs held-out losses while the run goes on; set eval.every to steps behind which "
                               "there are checkpoints too, or checkpoint.keep_best = 0",
                               c.checkpoint.keep_best));
  }
  if (reader.sound({"train.global_batch", "train.micro_batch"}) && c.train.global_batch % c.train.micro_batch != 0) {
    const std::int64_t below = c.train.global_batch / c.train.micro_batch * c.train.micro_batch;
    reader.problem("train.global_batch",
                   fmt::format("{} is not a multiple of train.micro_batch = {}; use {}{}, or train.micro_batch = {}",
                               c.train.global_batch, c.train.micro_batch, below > 0 ? fmt::format("{} or ", below) : "",
                               below + c.train.micro_batch,
                               fmt::join(divisors_near(c.train.micro_batch, c.train.global_batch), ", ")));
  }
  if (reader.sound({"train.stop_at", "train.steps"}) && c.train.stop_at > c.train.steps) {
    reader.problem("train.stop_at", fmt::format("{} lies behind train.steps = {}; lower it, or set 0 to run to the end",
                                                c.train.stop_at, c.train.steps));
  }
  if (reader.sound({"optimizer.min_learning_rate", "optimizer.learning_rate"}) && c.optimizer.min_learning_rate &&
      *c.optimizer.min_learning_rate > c.optimizer.learning_rate) {
    reader.problem("optimizer.min_learning_rate",
                   fmt::format("{} is above optimizer.learning_rate = {}; lower it, or set it in proportion: "
                               "optimizer.min_learning_rate_ratio = 0.1",
                               *c.optimizer.min_learning_rate, c.optimizer.learning_rate));
  }
}

void check_comm(ConfigReader& reader, const Config::Comm& c) {
  if (c.min_ctas && c.max_ctas && reader.sound({"comm.min_ctas", "comm.max_ctas"}) && *c.min_ctas > *c.max_ctas) {
    reader.problem("comm.min_ctas", fmt::format("{} is above comm.max_ctas = {}; lower it, or remove one of them",
                                                *c.min_ctas, *c.max_ctas));
  }
  if (c.copy_engines && c.buffers != CommBuffers::kSymmetric && reader.sound({"comm.copy_engines", "comm.buffers"})) {
    reader.problem("comm.copy_engines",
                   "copy engines reach only memory that all GPUs map alike; set comm.buffers = \"symmetric\" too");
  }
}

void expand_paths(Config& c) {
  c.run.dir = expand_home(c.run.dir);
  c.run.kernel_cache = expand_home(c.run.kernel_cache);
  for (std::string& path : c.data.train) path = expand_home(path);
  for (std::string& path : c.data.val) path = expand_home(path);
}

}  // namespace

Config load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides, Config defaults) {
  Config config = std::move(defaults);
  ConfigReader reader;
  bind_keys(reader, config);
  const bool complete = file.empty() || reader.read_file(file);
  for (const std::string& text : overrides) reader.read_override(text);
  settle(reader, "optimizer.min_learning_rate", config.optimizer.min_learning_rate, "optimizer.min_learning_rate_ratio",
         config.optimizer.min_learning_rate_ratio);
  settle(reader, "optimizer.warmup_steps", config.optimizer.warmup_steps, "optimizer.warmup_ratio",
         config.optimizer.warmup_ratio);
  // The minutes have a default, which contradicts nothing: what was said counts.
  std::optional<double> minutes;
  if (reader.source("checkpoint.every_minutes") != ConfigReader::Source::kDefault) {
    minutes = config.checkpoint.every_minutes;
  }
  settle(reader, "checkpoint.every", config.checkpoint.every, "checkpoint.every_minutes", minutes);
  check_comm(reader, config.comm);
  if (complete) check_contradictions(reader, config);  // else they would all be about defaults
  reader.finish();
  expand_paths(config);
  return config;
}

std::optional<models::RotaryScaling> rotary_scaling_from(const std::string& text) {
  models::RotaryScaling scaling;
  int end = 0;
  if (std::sscanf(text.c_str(), "llama3:%lf,%lf,%lf,%" SCNd64 "%n", &scaling.factor, &scaling.low_frequency_factor,
                  &scaling.high_frequency_factor, &scaling.original_sequence, &end) != 4 ||
      static_cast<std::size_t>(end) != text.size()) {
    return std::nullopt;
  }
  const bool sound = scaling.factor >= 1 && scaling.factor <= 1e6 && scaling.low_frequency_factor > 0 &&
                     scaling.high_frequency_factor > scaling.low_frequency_factor &&
                     scaling.high_frequency_factor <= 1e6 && scaling.original_sequence > 0 &&
                     scaling.original_sequence <= (1 << 24);
  return sound ? std::optional(scaling) : std::nullopt;
}

std::string config_to_json(const Config& config) {
  Config copy = config;
  ConfigReader reader;
  bind_keys(reader, copy);
  return reader.to_json();
}

Config config_from_json(const std::string& json) {
  Config config;
  ConfigReader reader;
  bind_keys(reader, config);
  const auto root = nlohmann::json::parse(json, nullptr, false);
  if (!root.is_object()) return config;
  for (const auto& [section, keys] : root.items()) {
    if (!keys.is_object()) continue;
    for (const auto& [key, value] : keys.items()) {
      reader.read_override(
          fmt::format("{}.{}={}", section, key, value.is_string() ? value.get<std::string>() : value.dump()));
    }
  }
  return config;
}

std::string config_hash(const Config& config) {
  Config copy = config;
  ConfigReader reader;
  bind_keys(reader, copy);
  return fmt::format("{:016x}", hash64(reader.results_json()));
}

std::vector<ConfigReader::KeyInfo> config_keys() {
  Config config;
  ConfigReader reader;
  bind_keys(reader, config);
  return reader.keys();
}

std::int64_t last_step(const Config& config) {
  return config.train.stop_at > 0 ? std::min(config.train.stop_at, config.train.steps) : config.train.steps;
}

namespace {

constexpr std::int64_t kDefaultWarmupSteps = 100;
constexpr double kDefaultFloor = 0.1;  // of the peak

void lay_out_schedule(const Config& config, Derived& derived) {
  const Config::Optimizer& o = config.optimizer;
  const std::int64_t steps = config.train.steps;
  derived.min_learning_rate =
      o.min_learning_rate.value_or(o.min_learning_rate_ratio.value_or(kDefaultFloor) * o.learning_rate);
  derived.warmup_steps = o.warmup_ratio ? std::llround(*o.warmup_ratio * static_cast<double>(steps))
                                        : o.warmup_steps.value_or(kDefaultWarmupSteps);
  // A run that is warm-up to its end would never train at its rate.
  const std::int64_t shortened = (steps + 9) / 10;
  if (!o.warmup_ratio && !o.warmup_steps && derived.warmup_steps > shortened) {
    derived.note = fmt::format(
        "the warm-up takes {} of {} steps, a tenth: the default of {} is longer; optimizer.warmup_steps sets another",
        shortened, steps, derived.warmup_steps);
    derived.warmup_steps = shortened;
  } else if (derived.warmup_steps > steps) {
    derived.note = fmt::format("the warm-up takes {} of {} steps: optimizer.warmup_steps = {} is longer than the run",
                               shortened, steps, derived.warmup_steps);
    derived.warmup_steps = shortened;
  }
}

}  // namespace

Derived derive(const Config& config, int ranks) {
  STRAKE_CHECK(ranks >= 1, "a run has ranks");
  const Config::Train& train = config.train;
  const std::int64_t at_once = train.micro_batch * ranks;
  if (train.global_batch % at_once != 0) {
    const std::int64_t below = train.global_batch / at_once * at_once;
    std::string remedy =
        fmt::format("use train.global_batch = {}{}", below > 0 ? fmt::format("{} or ", below) : "", below + at_once);
    if (train.global_batch % ranks == 0) {
      remedy += fmt::format(", or train.micro_batch = {}",
                            fmt::join(divisors_near(train.micro_batch, train.global_batch / ranks), ", "));
    }
    throw ConfigError(
        fmt::format("train.global_batch: {} is not a multiple of train.micro_batch x ranks = {} x {} = {}; {}",
                    train.global_batch, train.micro_batch, ranks, at_once, remedy));
  }
  Derived derived{.accumulation = train.global_batch / at_once,
                  .sequences_per_rank = train.global_batch / ranks,
                  .tokens_per_step = train.global_batch * train.sequence,
                  .warmup_steps = 0,
                  .min_learning_rate = 0,
                  .note = ""};
  lay_out_schedule(config, derived);
  return derived;
}

std::int64_t evaluation_batches(const Config& config, int ranks, std::int64_t held_out_sequences) {
  const std::int64_t there = held_out_sequences / (config.train.micro_batch * ranks);
  return std::max<std::int64_t>(1, std::min(there, config.eval.batches / ranks));
}

}  // namespace strake::launch
