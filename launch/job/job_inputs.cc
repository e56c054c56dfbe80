#include "launch/job/job_inputs.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>
#include <string_view>

#include "launch/job/model_shape.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

std::unique_ptr<data::TokenFiles> open_tokens(const std::vector<std::string>& names, const Config& config) {
  return std::make_unique<data::TokenFiles>(data::find_token_files(names), config.data.dtype);
}

void require_train_sequences(const data::TokenFiles& files, const Config& config) {
  if (files.sequences(config.train.sequence) >= 1) return;
  throw DataError(
      fmt::format("data.train: {} holds {} tokens, too few for one sequence and the target of its last token "
                  "(train.sequence + 1 = {}); use a larger file or a smaller train.sequence",
                  files.describe(), files.tokens(), config.train.sequence + 1));
}

// An evaluation is at least one batch on each rank.
void require_val_sequences(const data::TokenFiles& files, const Config& config, int ranks) {
  const Config::Train& train = config.train;
  const std::int64_t least = train.micro_batch * ranks;
  if (files.sequences(train.sequence) >= least) return;
  throw DataError(fmt::format(
      "data.val: {} holds {} tokens, too few for one batch of each rank: ranks x train.micro_batch x "
      "train.sequence + 1 = {} x {} x {} + 1 = {}; hold out more text (strake data prepare --val-fraction), "
      "or use a smaller train.micro_batch, a smaller train.sequence or fewer ranks",
      files.describe(), files.tokens(), ranks, train.micro_batch, train.sequence, least * train.sequence + 1));
}

// A held-out loss over what was trained on tells nothing, and looks like success. Patterns and lists overlap by
// mistake; one file named twice is meant so, to try things.
void require_disjoint(const data::TokenFiles& train, const data::TokenFiles& val) {
  if (train.size() == 1 && val.size() == 1) return;
  const auto real_path = [](const data::TokenFile& file) { return std::filesystem::weakly_canonical(file.describe()); };
  std::set<std::filesystem::path> trained;
  for (std::size_t i = 0; i < train.size(); ++i) trained.insert(real_path(train.file(i)));
  for (std::size_t i = 0; i < val.size(); ++i) {
    if (!trained.contains(real_path(val.file(i)))) continue;
    throw ConfigError(
        fmt::format("data.val: {} is also trained on (data.train); hold out other text, or set data.val = \"\"",
                    val.file(i).describe()));
  }
}

void require_vocab(const char* key, const data::TokenFiles& files, std::int64_t vocab) {
  if (files.vocab() <= vocab) return;
  throw ConfigError(fmt::format("model.vocab = {} is smaller than the vocabulary of {} ({}, {}); raise it{}", vocab,
                                files.file_of_vocab().describe(), files.vocab(), key,
                                key == std::string_view("data.train") ? ", or set 0" : ""));
}

// Everything that this rank will read for a held-out loss: it would come up only when the first one is due, which may
// be behind the last step.
void require_val_ids(data::TokenFiles& files, const Config& config, int rank, int ranks, std::int64_t vocab) {
  const Config::Train& train = config.train;
  const std::int64_t batches = evaluation_batches(config, ranks, files.sequences(train.sequence));
  for (std::int64_t batch = 0; batch < batches; ++batch) {
    const std::int64_t begin = (batch * ranks + rank) * train.micro_batch * train.sequence;
    data::require_ids_below(vocab, files, begin, begin + train.micro_batch * train.sequence + 1);
  }
}

void describe(const std::string& key, const data::TokenFiles& files,
              std::vector<std::pair<std::string, std::string>>& out) {
  if (files.size() == 1) {
    out.emplace_back(key, files.file(0).fingerprint());
    return;
  }
  out.emplace_back(key, fmt::format("{} files, {} tokens", files.size(), files.tokens()));
  for (std::size_t i = 0; i < files.size(); ++i) {
    out.emplace_back(fmt::format("{}[{}]", key, i), files.file(i).fingerprint());
  }
}

void choose_types(Job& job, DeviceKind device) {
  const bool gpu = device == DeviceKind::kCuda;
  const Config::Train& train = job.config.train;
  const bool bf16 = train.dtype == ComputeType::kBF16 || (train.dtype == ComputeType::kAuto && gpu);
  if (bf16 && !gpu)
    throw ConfigError("train.dtype = bf16: the CPU device computes in f32; set train.dtype = auto or f32");
  if (train.gradient_dtype == ComputeType::kBF16 && !bf16) {
    throw ConfigError("train.gradient_dtype = bf16 needs train.dtype = bf16; set train.gradient_dtype = auto");
  }
  const bool wide = train.gradient_dtype == ComputeType::kF32 ||
                    (train.gradient_dtype == ComputeType::kAuto && job.derived.accumulation > 1);
  job.dtype = bf16 ? DType::kBF16 : DType::kF32;
  job.gradient_dtype = bf16 && !wide ? DType::kBF16 : DType::kF32;
  const ComputeType wire = job.config.comm.wire_dtype;
  const DType by_itself = job.ranks > kMostRanksOnANarrowWire ? DType::kF32 : job.gradient_dtype;
  job.wire_dtype = wire == ComputeType::kAuto ? by_itself : wire == ComputeType::kBF16 ? DType::kBF16 : DType::kF32;
}

// What needs no vocabulary.
Job begin_job(const Config& config, int rank, int ranks, DeviceKind device) {
  Job job;
  job.config = config;
  job.derived = derive(config, ranks);
  job.rank = rank;
  job.ranks = ranks;
  choose_types(job, device);
  return job;
}

void choose_split(Job& job) {
  const SplitTable asked = job.config.comm.split_embedding;
  if (asked == SplitTable::kAlways && !job.shape.tied_head) {
    throw ConfigError(
        "comm.split_embedding = true: the head has weights of its own (model.tied_head = false), so nothing can be "
        "split; set comm.split_embedding = auto");
  }
  job.split_embedding = models::split_where_fewer_bytes(
      job.shape,
      {.ranks = job.ranks, .tokens_per_step = job.derived.tokens_per_step, .row = job.dtype, .wire = job.wire_dtype});
  if (asked != SplitTable::kAuto && job.ranks > 1)
    job.split_embedding = asked == SplitTable::kAlways ? models::SplitEmbedding::kYes : models::SplitEmbedding::kNo;
}

void set_shape(Job& job, DeviceKind device, std::int64_t vocab) {
  job.shape = shape_of(job.config, vocab);
  choose_split(job);
  const std::string too_much = models::unsupported(job.shape, device, job.dtype, job.config.train.micro_batch);
  if (too_much.empty()) return;
  std::string remedy = "change the model or the batch";
  if (device != DeviceKind::kCpu &&
      models::unsupported(job.shape, DeviceKind::kCpu, DType::kF32, job.config.train.micro_batch).empty()) {
    remedy += ", or set run.device = cpu";
    if (job.config.train.dtype == ComputeType::kBF16) remedy += " and train.dtype = f32";
  }
  throw ConfigError(fmt::format("{}; {}", too_much, remedy));
}

}  // namespace

Job job_of(const Config& config, int rank, int ranks, DeviceKind device, std::int64_t vocab) {
  Job job = begin_job(config, rank, ranks, device);
  set_shape(job, device, vocab);
  return job;
}

JobInputs JobInputs::open(const Config& config, int rank, int ranks, DeviceKind device) {
  JobInputs inputs;
  inputs.job = begin_job(config, rank, ranks, device);
  if (config.data.train.empty()) throw ConfigError("data.train: name a token file (strake data prepare makes one)");
  inputs.train = open_tokens(config.data.train, config);
  require_train_sequences(*inputs.train, config);
  if (!config.data.val.empty()) {
    inputs.val = open_tokens(config.data.val, config);
    require_val_sequences(*inputs.val, config, ranks);
    require_disjoint(*inputs.train, *inputs.val);
  }

  const std::int64_t vocab = config.model.vocab != 0 ? config.model.vocab : inputs.train->vocab();
  if (vocab == 0) {
    throw ConfigError(fmt::format("model.vocab: {} has no sidecar that names its vocabulary; set model.vocab",
                                  inputs.train->describe()));
  }
  require_vocab("data.train", *inputs.train, vocab);
  inputs.train->require_sampled_ids_below(vocab);
  if (inputs.val != nullptr) {
    const data::TokenizerIdentity &theirs = inputs.val->tokenizer(), &ours = inputs.train->tokenizer();
    if (theirs.known() && ours.known() && theirs != ours) {
      throw DataError(fmt::format("data.val: {} was made by tokenizer {}, {} by {}; prepare both with one tokenizer",
                                  inputs.val->describe(), data::describe_tokenizer(theirs), inputs.train->describe(),
                                  data::describe_tokenizer(ours)));
    }
    require_vocab("data.val", *inputs.val, vocab);
    require_val_ids(*inputs.val, config, rank, ranks, vocab);
  }
  set_shape(inputs.job, device, vocab);
  return inputs;
}

data::DataCursor JobInputs::cursor(std::int64_t next_sample) const {
  return data::make_cursor(*train, static_cast<std::uint64_t>(job.config.run.seed), job.config.train.sequence,
                           next_sample);
}

std::vector<std::pair<std::string, std::string>> JobInputs::identity() const {
  std::vector<std::pair<std::string, std::string>> out;
  describe("data.train", *train, out);
  if (val != nullptr) describe("data.val", *val, out);
  out.emplace_back("tokenizer", data::describe_tokenizer(train->tokenizer()));
  return out;
}

}  // namespace strake::launch
