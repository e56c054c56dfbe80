#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "checkpoint/checkpointer.h"
#include "checkpoint/reader.h"
#include "checkpoint/safetensors.h"
#include "comm/threads/threads_world.h"
#include "data/byte_tokenizer.h"
#include "data/tokenizer_identity.h"
#include "launch/commands/commands.h"
#include "launch/run/checkpoint_source.h"
#include "launch/run/manifest.h"
#include "launch/run/metrics.h"
#include "launch/run/run_folder.h"
#include "models/hugging_face_gpt2.h"
#include "models/transformer.h"
#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/host_memory.h"

namespace strake::launch {
namespace {

namespace fs = std::filesystem;
using checkpoint::Safetensors;
using checkpoint::SafetensorsEntry;
using models::HuggingFaceTensor;

constexpr std::string_view kConfigName = "config.json";
constexpr std::uint64_t kMaxConfigBytes = 1 << 20;

// The weights of a model in host memory, as checkpoints know them.
struct HostWeights {
  explicit HostWeights(const models::TransformerShape& shape)
      : layout(models::parameters_of(shape)),
        device(make_cpu_device()),
        stream(device->make_stream("copy", StreamPriority::kNormal)),
        flat(Tensor::reserve(memory, DType::kF32, {layout.total_elems()})) {}

  Tensor view(ParamId id) const { return layout.view(flat, id).reshape({layout.spec(id).elems()}); }
  void append_to(TensorTable& table, const char* prefix, const Tensor* same = nullptr) const {
    for (std::size_t i = 0; i < layout.size(); ++i) {
      const ParamId id{static_cast<std::int32_t>(i)};
      const ParamSpec& spec = layout.spec(id);
      table.entries.push_back({.name = prefix + spec.name,
                               .global_shape = spec.global_shape,
                               .view = same == nullptr ? view(id) : same->flat(0, spec.elems())});
    }
  }

  ParamLayout layout;
  std::unique_ptr<Device> device;
  Arena memory{"weights", MemoryKind::kHost};
  std::unique_ptr<Stream> stream;
  Tensor flat;
};

std::unique_ptr<HostWeights> read_weights(Files& files, const checkpoint::FoundCheckpoint& found) {
  const std::string& model = found.manifest.meta.model;
  auto weights = std::make_unique<HostWeights>(models::TransformerShape::from_json(model));
  Arena staging_memory("staging", MemoryKind::kHost);
  const Tensor staging = Tensor::reserve(staging_memory, DType::kU8, {4 << 20});
  weights->memory.allocate(*weights->device);
  staging_memory.allocate(*weights->device);
  TensorTable table;
  weights->append_to(table, "param/");
  checkpoint::read_tensors(files, found, table, model, *weights->stream, staging);
  return weights;
}

std::string shown(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Which tensor of the file is which of the model; everything that does not fit is one error.
std::vector<const SafetensorsEntry*> match(const Safetensors& source, const std::vector<HuggingFaceTensor>& wanted,
                                           const fs::path& path) {
  std::vector<std::string> problems;
  std::map<std::string, const SafetensorsEntry*, std::less<>> found;  // by name without prefix
  for (const SafetensorsEntry& entry : source.entries()) {
    std::string_view name = entry.name;
    if (name.starts_with(models::kHuggingFacePrefix)) name.remove_prefix(models::kHuggingFacePrefix.size());
    if (models::is_hugging_face_mask(name)) continue;
    if (!found.emplace(name, &entry).second)
      problems.push_back(fmt::format("{} is there with and without prefix", name));
  }
  found.erase(std::string(models::kHuggingFaceHead));
  std::vector<const SafetensorsEntry*> matched;
  for (const HuggingFaceTensor& tensor : wanted) {
    const auto at = found.find(tensor.name);
    if (at == found.end()) {
      problems.push_back(fmt::format("{} is missing", tensor.name));
      continue;
    }
    if (at->second->shape != tensor.shape) {
      problems.push_back(
          fmt::format("{} is {}, config.json says {}", tensor.name, shown(at->second->shape), shown(tensor.shape)));
    }
    matched.push_back(at->second);
    found.erase(at);
  }
  for (const auto& [name, entry] : found) problems.push_back(fmt::format("{} is not known", name));
  if (problems.empty()) return matched;
  constexpr std::size_t kMostShown = 8;
  const std::size_t more = problems.size() - std::min(problems.size(), kMostShown);
  problems.resize(problems.size() - more);
  throw IncompatibleCheckpointError(
      fmt::format("{}: its tensors are not those of the GPT-2 that its config.json describes: {}{}; import the files "
                  "that were saved together",
                  path.string(), fmt::join(problems, "; "), more > 0 ? fmt::format("; and {} more", more) : ""));
}

// The head is the token table here: a file that keeps its own must keep the same.
void require_tied_head(const Safetensors& source, const SafetensorsEntry& table, const fs::path& path) {
  const SafetensorsEntry* head = source.find(models::kHuggingFaceHead);
  if (head == nullptr) return;
  bool same = head->shape == table.shape && head->dtype == table.dtype;
  std::vector<std::byte> a(1 << 20), b(a.size());
  for (std::uint64_t at = 0; same && at < table.size_bytes; at += a.size()) {
    const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>(a.size(), table.size_bytes - at));
    source.read(*head, at, std::span(a).first(piece));
    source.read(table, at, std::span(b).first(piece));
    same = std::memcmp(a.data(), b.data(), piece) == 0;
  }
  if (same) return;
  throw IncompatibleCheckpointError(
      fmt::format("{}: {} is not {}: this model has a head of its own, which cannot be imported; tie the two before "
                  "saving",
                  path.string(), head->name, table.name));
}

// Takes a folder for weights that no run stands behind yet.
RunFolder take_run_folder(Files& files, const fs::path& path) {
  const fs::path checkpoints = checkpoint_folder(path);
  if (files.exists(path / "manifest.json") || files.exists(metrics_path(path)) ||
      !checkpoint::committed_steps(files, checkpoints).empty() ||
      !checkpoint::set_aside_steps(files, checkpoints).empty()) {
    throw ConfigError(fmt::format("--run: {} holds a run already; name a new folder", path.string()));
  }
  return RunFolder::start(files, path, Resume::kAuto);
}

// What is in the folder is not lost to an export, unless it is an older one.
void require_no_stranger(Files& files, const fs::path& folder) {
  const fs::path config = folder / kConfigName, weights = folder / checkpoint::kSafetensorsName;
  if (!files.exists(config) && !files.exists(weights)) return;
  if (files.exists(config)) {
    std::string text;
    try {
      text = read_file(files, config, kMaxConfigBytes);
    } catch (const Error&) {  // too large, a folder: not an export's
    }
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (json.is_object() && json.value("model_type", nlohmann::json()) == "gpt2") return;
  }
  throw ConfigError(
      fmt::format("--out: {} is there, and no model_type \"gpt2\" in {} says that it is an export; name "
                  "another folder, or remove it",
                  (files.exists(config) ? config : weights).string(), kConfigName));
}

// Folders of checkpoints hold nothing else, whatever run they are of. Others above are not looked into: that may not be
// allowed.
void require_outside_checkpoints(Files& files, const fs::path& folder) {
  std::error_code ignored;
  fs::path at = fs::weakly_canonical(folder, ignored);
  if (!at.has_filename()) at = at.parent_path();  // "ckpt/"
  for (; at.has_relative_path(); at = at.parent_path()) {
    if (!checkpoint::step_of(at.filename().string()) &&
        !(at == checkpoint_folder(at.parent_path()) && !checkpoint::committed_steps(files, at).empty())) {
      continue;
    }
    throw ConfigError(fmt::format(
        "--out: {} is in a folder of checkpoints, which holds nothing else; name another folder", folder.string()));
  }
}

data::TokenizerIdentity tokenizer_named(const std::string& name) {
  constexpr std::size_t kMostBytes = 256;  // of a name, as files keep it
  if (name.empty() || name.size() > kMostBytes) {
    throw ConfigError(fmt::format("--tokenizer: {} bytes; give a name of 1 to {}", name.size(), kMostBytes));
  }
  const data::TokenizerIdentity bytes = data::ByteTokenizer::identity();
  return name == bytes.name ? bytes : data::TokenizerIdentity{.name = name, .hash = {}};
}

}  // namespace

int import_weights(const ImportArguments& arguments) {
  PosixFiles files;
  const data::TokenizerIdentity tokenizer = tokenizer_named(arguments.tokenizer);
  const fs::path source_path = arguments.source;
  if (!files.exists(source_path)) {
    throw ConfigError(
        fmt::format("{}: does not exist; name a folder with model.safetensors and config.json", source_path.string()));
  }
  const Safetensors source = Safetensors::open(files, source_path);
  const fs::path config_path =
      (files.is_directory(source_path) ? source_path : source_path.parent_path()) / kConfigName;
  if (!files.exists(config_path)) {
    throw ConfigError(fmt::format("{}: is missing; it stands beside the weights and says what model they are of",
                                  config_path.string()));
  }
  const models::TransformerShape shape =
      models::shape_from_hugging_face(read_file(files, config_path, kMaxConfigBytes), config_path.string());
  const std::vector<HuggingFaceTensor> tensors = models::hugging_face_tensors(shape);
  const std::vector<const SafetensorsEntry*> entries = match(source, tensors, source_path);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name == "wte.weight") require_tied_head(source, *entries[i], source_path);
  }

  HostWeights weights(shape);
  weights.memory.allocate(*weights.device);
  std::vector<float> theirs;
  std::int64_t imported_elems = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    imported_elems += tensors[i].elems();
    theirs.resize(static_cast<std::size_t>(tensors[i].elems()));
    source.read_f32(*entries[i], 0, theirs);
    models::from_hugging_face(tensors[i], theirs, host_span<float>(weights.view(tensors[i].param)));
  }

  const RunFolder folder = take_run_folder(files, arguments.run);
  // Both moments of every parameter are these zeros: nothing was trained yet.
  Arena zeros_memory("zeros", MemoryKind::kHost), staging("staging", MemoryKind::kHost);
  std::int64_t largest = 0;
  for (const ParamSpec& spec : weights.layout.specs()) largest = std::max(largest, spec.elems());
  const Tensor zeros = Tensor::reserve(zeros_memory, DType::kF32, {largest});
  TensorTable table;
  weights.append_to(table, "param/");
  weights.append_to(table, "adam_m/", &zeros);
  weights.append_to(table, "adam_v/", &zeros);
  comm::ThreadsWorld world(1);
  const std::unique_ptr<comm::Control> control = world.make_control(0);
  checkpoint::Checkpointer checkpointer(files, *control, *weights.device, *weights.stream, staging, std::move(table),
                                        {.directory = checkpoint_folder(arguments.run), .attempt = folder.attempt()});
  for (Arena* arena : {&zeros_memory, &staging}) arena->allocate(*weights.device);
  Event filled = weights.device->make_event("weights imported");
  weights.stream->record(filled);
  // No data was consumed: an empty cursor. The run that starts from here brings its own.
  checkpointer.save(filled, {.step = 0,
                             .tokens = 0,
                             .attempt = folder.attempt(),
                             .data_cursor = {},
                             .tokenizer = data::to_json(tokenizer),
                             .model = shape.to_json(),
                             .choices = "{}",
                             .config = {},
                             .config_hash = {}});
  fmt::print("{}: {} tensors, {} parameters\n", source_path.string(), tensors.size(), imported_elems);
  fmt::print(
      "train with: run.dir={} model.layers={} model.channels={} model.heads={} model.vocab={} train.sequence={}\n",
      arguments.run.string(), shape.layers, shape.channels, shape.heads, shape.vocab, shape.sequence);
  return 0;
}

int export_weights(const ExportArguments& arguments) {
  PosixFiles files;
  require_outside_checkpoints(files, arguments.out);
  require_no_stranger(files, arguments.out);
  CheckpointSource source(files, arguments.path);
  checkpoint::FoundCheckpoint found;
  std::unique_ptr<HostWeights> read;
  use_checkpoint(source, [&](const checkpoint::FoundCheckpoint& newest) {
    read = read_weights(files, newest);
    found = newest;
  });
  const HostWeights& weights = *read;
  const models::TransformerShape shape = models::TransformerShape::from_json(found.manifest.meta.model);
  const data::TokenizerIdentity tokenizer =
      data::tokenizer_from_json(found.manifest.meta.tokenizer, found.path.string());

  // By name: the order in which Hugging Face's own writer puts tensors of one dtype.
  std::vector<HuggingFaceTensor> tensors = models::hugging_face_tensors(shape);
  std::sort(tensors.begin(), tensors.end(),
            [](const HuggingFaceTensor& a, const HuggingFaceTensor& b) { return a.name < b.name; });
  std::vector<checkpoint::SafetensorsSpec> specs;
  for (const HuggingFaceTensor& tensor : tensors) {
    specs.push_back({.name = std::string(models::kHuggingFacePrefix) + tensor.name,
                     .dtype = arguments.dtype,
                     .shape = tensor.shape});
  }
  files.make_directories(arguments.out);
  // "<|endoftext|>" of GPT-2's own vocabulary.
  const std::int64_t end_of_text = tokenizer.name == "gpt2" && shape.vocab == 50257 ? 50256 : -1;
  write_file_durably(files, arguments.out / kConfigName,
                     models::hugging_face_config(shape, arguments.dtype, end_of_text));
  const fs::path path = arguments.out / checkpoint::kSafetensorsName;
  checkpoint::SafetensorsWriter writer(files, path, specs, {{"format", "pt"}});
  std::vector<float> theirs;
  std::vector<BFloat16> rounded;
  for (const HuggingFaceTensor& tensor : tensors) {
    theirs.resize(static_cast<std::size_t>(tensor.elems()));
    models::to_hugging_face(tensor, host_span<float>(weights.view(tensor.param)), theirs);
    if (arguments.dtype == DType::kBF16) {
      rounded.resize(theirs.size());
      std::transform(theirs.begin(), theirs.end(), rounded.begin(), to_bfloat16);
      writer.append(std::as_bytes(std::span(rounded)));
    } else {
      writer.append(std::as_bytes(std::span(theirs)));
    }
  }
  writer.finish();
  fmt::print("{}: {} tensors, step {} of {}\n", path.string(), tensors.size(), found.manifest.meta.step,
             found.path.string());
  return 0;
}

}  // namespace strake::launch
