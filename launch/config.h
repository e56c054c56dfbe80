// Config: everything a user can set about a run. The defaults below are the documentation of the
// defaults; `strake info --keys` lists them with their ranges.
//
// Errors: ConfigError that lists every problem, one a line, with file and line, before anything is
// allocated. Threads: a value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/token_file_format.h"
#include "models/recompute.h"
#include "models/shard.h"
#include "models/transformer_shape.h"
#include "runtime/base/config_reader.h"

namespace strake::launch {

enum class DeviceChoice : std::uint8_t { kAuto, kCpu, kCuda };
// What the model computes in, and what gradients are kept in.
enum class ComputeType : std::uint8_t {
  kAuto,  // compute: bf16 on GPUs, f32 on the CPU; gradients: as compute, f32 when micro-batches add up; wire: as those
  kF32,
  kBF16,
};
// What connects the ranks of a run.
enum class CommBackend : std::uint8_t {
  kAuto,    // NCCL between GPUs, MPI between CPU ranks
  kNccl,    // a GPU each
  kStaged,  // through host memory: ranks may share a GPU
};
// Where NCCL's collectives find what they move.
enum class CommBuffers : std::uint8_t {
  kPlain,       // through buffers of NCCL's own
  kRegistered,  // in place, where NCCL can
  kSymmetric,   // in place, mapped alike by all GPUs of a host
};
// Whether the gradient of a tied token table is summed over ranks in two parts (models/split_embedding.h).
enum class SplitTable : std::uint8_t {
  kAuto,  // where that is fewer bytes at the end of backward
  kAlways,
  kNever,
};
// How a run tells people, and programs, what it does.
enum class LogFormat : std::uint8_t {
  kAuto,   // a bar where standard error is a terminal, else lines
  kBar,    // one line that is drawn again and again, messages above it
  kLines,  // a line every log.every steps, each with its time
  kJson,   // one JSON object a line (docs/formats.md)
};
// How the state of a checkpoint leaves the device while training goes on (checkpoint/strategy.h).
enum class CheckpointStrategy : std::uint8_t { kAuto, kSync, kPinned, kLazy, kDevice };
// What a checkpoint that is due does while the one before is still being written.
enum class IfBusy : std::uint8_t {
  kWait,  // for as long as the interval between them or 10 s, then it is left out
  kSkip,  // it is left out
};
enum class Resume : std::uint8_t {
  kAuto,   // resume if the run folder holds a run
  kMust,   // the run folder must hold a checkpoint
  kNever,  // refuse a run folder that is not empty
};

struct Config {
  struct Run {
    std::string dir = "runs/default";
    std::int64_t seed = 1;
    DeviceChoice device = DeviceChoice::kAuto;
    double hang_s = 300;  // without progress until the job is ended; 0: never
    std::string kernel_cache = "auto";
  } run;

  struct Model {
    std::string kind = "gpt2";
    std::int64_t layers = 4;
    std::int64_t channels = 128;
    std::int64_t heads = 4;
    std::int64_t vocab = 0;  // 0: that of the token file's tokenizer
    // Not set: as the family has it (launch/job/model_shape.h).
    std::optional<std::int64_t> kv_heads = {};
    std::optional<std::int64_t> head_size = {};
    std::optional<std::int64_t> mlp_channels = {};
    std::optional<double> norm_epsilon = {};
    std::optional<double> rope_theta = {};
    std::string rope_scaling = {};  // "llama3:FACTOR,LOW,HIGH,ORIGINAL"; empty: none
    std::optional<bool> tied_head = {};
  } model;

  struct Data {
    std::vector<std::string> train;        // token files or patterns of their names, read as one stream
    std::vector<std::string> val;          // empty: no evaluation
    std::optional<data::TokenType> dtype;  // of files that do not say it themselves; nullopt: refuse those
  } data;

  struct Train {
    std::int64_t steps = 1000;       // the learning-rate schedule is laid out for them
    std::int64_t stop_at = 0;        // end after this step, with a checkpoint; 0: off
    std::int64_t global_batch = 16;  // sequences a step, over all ranks
    std::int64_t micro_batch = 8;    // sequences a rank computes at once
    std::int64_t sequence = 128;     // tokens
    std::string init_from;           // run folder or checkpoint whose weights a new run starts from; empty: random ones
    ComputeType dtype = ComputeType::kAuto;
    ComputeType gradient_dtype = ComputeType::kAuto;
    models::Recompute recompute = models::Recompute::kNone;
    models::Shard shard = models::Shard::kNone;
    bool deterministic = false;  // GPUs: only algorithms that give the same bits again
  } train;

  struct Optimizer {
    double learning_rate = 6e-4;
    // The floor and the warm-up can be said in two ways each; at most one of a pair is set. derive() has what counts.
    std::optional<double> min_learning_rate;
    std::optional<double> min_learning_rate_ratio;  // of learning_rate
    std::optional<std::int64_t> warmup_steps;
    std::optional<double> warmup_ratio;  // of train.steps
    double beta1 = 0.9;
    double beta2 = 0.95;
    double epsilon = 1e-8;
    double weight_decay = 0.1;
    double clip_norm = 1.0;  // of the whole gradient; 0: no clipping
  } optimizer;

  struct Comm {
    CommBackend backend = CommBackend::kAuto;
    bool overlap = true;
    std::optional<double> bucket_mib = 25;        // as it travels; not set: chosen (launch/train/bucket_choice.h)
    ComputeType wire_dtype = ComputeType::kAuto;  // what gradients are summed over ranks in; auto: job_inputs.h
    // How many multiprocessors communication takes, see launch/job/comm_switches.h. Off until measured.
    std::optional<std::int64_t> min_ctas = {}, max_ctas = {};  // of a collective of NCCL; not set: its choice
    CommBuffers buffers = CommBuffers::kPlain;
    bool copy_engines = false;
    std::int64_t spare_sms = 0;  // that products beside a collective leave to it
    SplitTable split_embedding = SplitTable::kAuto;
  } comm;

  struct Checkpoint {
    std::optional<std::int64_t> every;  // steps; 0: none; not set: by time
    double every_minutes = 15;          // where `every` is not set
    bool at_end = true;                 // of the last step
    Resume resume = Resume::kAuto;
    // Which stay (checkpoint/retention.h).
    std::int64_t keep = 2;
    std::int64_t keep_every = 0;
    std::int64_t keep_best = 0;
    CheckpointStrategy strategy = CheckpointStrategy::kAuto;
    IfBusy if_busy = IfBusy::kWait;
    std::optional<std::int64_t> writers;  // threads of a rank; not set: launch/train/strategy_choice.h
    std::optional<bool> direct_io;        // past the page cache, where the file system can; not set: likewise
    bool paranoid = false;  // compare what is written with what the device held
  } checkpoint;

  struct Eval {
    std::int64_t every = 0;     // steps; 0: only after the last step
    std::int64_t batches = 20;  // of train.micro_batch sequences, shared out to the ranks; at least one each
  } eval;

  struct Log {
    std::int64_t every = 10;  // steps between progress lines
    LogFormat format = LogFormat::kAuto;
  } log;

  struct Debug {
    bool order_check = false;    // report accesses that no stream order or event covers
    std::int64_t jitter_us = 0;  // longest random delay put before operations of every stream
  } debug;
};

// Defaults, then the file, then the overrides ("train.steps=10") in their order; then what contradicts
// itself. An empty path means no file. A leading ~ of paths is expanded.
Config load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides, Config defaults = {});

// All values, one line, the same for the same values.
std::string config_to_json(const Config& config);

// What config_to_json has written, by this program or an older one: keys that are not known or not accepted any more
// keep their defaults.
Config config_from_json(const std::string& json);

// 16 hex digits over the keys that are meant to change results: not folders, logging, overlap,
// buckets, checkpoints, evaluation, device or debugging.
std::string config_hash(const Config& config);

// Every key with what it accepts, its default and its meaning.
std::vector<ConfigReader::KeyInfo> config_keys();

// Of model.rope_scaling; nullopt for the empty text and for what is no scaling.
std::optional<models::RotaryScaling> rotary_scaling_from(const std::string& text);

// After which an attempt ends of itself.
std::int64_t last_step(const Config& config);

// What follows from a config and the number of ranks.
struct Derived {
  std::int64_t accumulation;        // micro-batches a rank adds up in a step
  std::int64_t sequences_per_rank;  // a step
  std::int64_t tokens_per_step;     // over all ranks
  std::int64_t warmup_steps;        // at most train.steps
  double min_learning_rate;
  std::string note;  // what is not as the config says, and why; empty: all of it is
};

// Batches of train.micro_batch that each rank computes for a held-out loss over so many sequences: at least one.
std::int64_t evaluation_batches(const Config& config, int ranks, std::int64_t held_out_sequences);

// Throws ConfigError if train.global_batch cannot be divided so, naming values that can.
Derived derive(const Config& config, int ranks);

}  // namespace strake::launch
