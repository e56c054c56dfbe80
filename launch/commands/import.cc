// `strake import`: weights of other programs as the first checkpoint of a run.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include "checkpoint/directory.h"
#include "checkpoint/safetensors.h"
#include "data/byte_tokenizer.h"
#include "data/tokenizer_identity.h"
#include "launch/commands/commands.h"
#include "launch/commands/host_weights.h"
#include "launch/job/model_shape.h"
#include "launch/report/run_report.h"
#include "models/formats/hugging_face.h"
#include "models/parameters/owned_ranges.h"
#include "runtime/base/error.h"
#include "runtime/device/host_memory.h"

namespace strake::launch {
namespace {

namespace fs = std::filesystem;
using checkpoint::Safetensors;
using checkpoint::SafetensorsEntry;
using models::ForeignTensor;

std::string shown(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Which tensor of the file is which of the model; everything that does not fit is one error.
std::vector<const SafetensorsEntry*> match(const Safetensors& source, const std::vector<ForeignTensor>& wanted,
                                           const models::TransformerShape& shape, const fs::path& path) {
  std::vector<std::string> problems;
  std::map<std::string, const SafetensorsEntry*, std::less<>> found;  // by name without prefix
  for (const SafetensorsEntry& entry : source.entries()) {
    const std::string_view name = models::without_hugging_face_prefix(shape, entry.name);
    if (models::is_hugging_face_buffer(name)) continue;
    if (!found.emplace(name, &entry).second)
      problems.push_back(fmt::format("{} is there with and without prefix", name));
  }
  if (shape.tied_head) found.erase(std::string(models::kHuggingFaceHead));
  std::vector<const SafetensorsEntry*> matched;
  for (const ForeignTensor& tensor : wanted) {
    const auto at = found.find(tensor.name);
    if (at == found.end()) {
      problems.push_back(fmt::format("{} is missing{}", tensor.name,
                                     tensor.name == models::kHuggingFaceHead ? ", tie_word_embeddings is false" : ""));
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
      fmt::format("{}: its tensors are not those of the model that its config.json describes: {}{}; import the files "
                  "that were saved together",
                  path.string(), fmt::join(problems, "; "), more > 0 ? fmt::format("; and {} more", more) : ""));
}

// Where the head is the token table, a file that keeps its own must keep the same.
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
  throw IncompatibleCheckpointError(fmt::format(
      "{}: {} is not {}: this model has a head of its own, and its config.json says that it has none; import "
      "the files that were saved together, or tie the two before saving",
      path.string(), head->name, table.name));
}

data::TokenizerIdentity tokenizer_named(const std::string& name) {
  constexpr std::size_t kMostBytes = 256;  // of a name, as files keep it
  if (name.empty() || name.size() > kMostBytes) {
    throw ConfigError(fmt::format("--tokenizer: {} bytes; give a name of 1 to {}", name.size(), kMostBytes));
  }
  const data::TokenizerIdentity bytes = data::ByteTokenizer::identity();
  return name == bytes.name ? bytes : data::TokenizerIdentity{.name = name, .hash = {}};
}

// With rotary positions a model may be trained on other lengths than its config.json names.
std::int64_t sequence_named(std::int64_t asked, const models::TransformerShape& shape) {
  if (asked == 0 || asked == shape.sequence) return shape.sequence;
  if (shape.positions == models::Positions::kRotary) return asked;
  throw ConfigError(
      fmt::format("--sequence: {} is not possible: this model has learned {} positions", asked, shape.sequence));
}

}  // namespace

int import_weights(const ImportArguments& arguments) {
  PosixFiles files;
  const data::TokenizerIdentity tokenizer = tokenizer_named(arguments.tokenizer);
  require_new_run(files, arguments.run);
  const fs::path source_path = arguments.source;
  if (!files.exists(source_path)) {
    throw ConfigError(
        fmt::format("{}: does not exist; name a folder with model.safetensors and config.json", source_path.string()));
  }
  std::optional<Safetensors> opened;
  checkpoint::use_folder(source_path.string(), [&] { opened = Safetensors::open(files, source_path); });
  const Safetensors& source = *opened;
  const fs::path config_path =
      (files.is_directory(source_path) ? source_path : source_path.parent_path()) / kHuggingFaceConfig;
  if (!files.exists(config_path)) {
    throw ConfigError(fmt::format("{}: is missing; it stands beside the weights and says what model they are of",
                                  config_path.string()));
  }
  std::string config;
  checkpoint::use_folder(source_path.string(),
                         [&] { config = read_file(files, config_path, kMaxHuggingFaceConfigBytes); });
  models::TransformerShape shape = models::shape_from_hugging_face(config, config_path.string());
  const std::vector<ForeignTensor> tensors = models::hugging_face_tensors(shape);
  const std::vector<const SafetensorsEntry*> entries = match(source, tensors, shape, source_path);
  if (shape.tied_head) {
    const auto table = &models::token_table_of(tensors, shape) - tensors.data();
    require_tied_head(source, *entries[static_cast<std::size_t>(table)], source_path);
  }
  shape.sequence = sequence_named(arguments.sequence, shape);

  HostWeights weights(shape);
  std::int64_t largest = 0;
  for (const ParamSpec& spec : weights.layout.specs()) largest = std::max(largest, spec.elems());
  const Tensor zeros = Tensor::reserve(weights.memory, DType::kF32, {largest});
  weights.memory.allocate(*weights.device);
  std::vector<float> theirs;
  std::int64_t imported_elems = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    imported_elems += tensors[i].elems();
    theirs.resize(static_cast<std::size_t>(tensors[i].elems()));
    source.read_f32(*entries[i], 0, theirs);
    models::copy_from(tensors[i], weights.layout.spec(tensors[i].param), theirs,
                      host_span<float>(weights.view(tensors[i].param)));
  }

  TensorTable table;
  models::append_ranges(table, "param/", weights.layout, weights.flat);
  // Both moments of every parameter are these zeros: nothing was trained yet.
  for (const std::string_view prefix : {"adam_m/", "adam_v/"}) {
    for (const ParamSpec& spec : weights.layout.specs()) {
      table.entries.push_back({.name = fmt::format("{}{}", prefix, spec.name),
                               .global_shape = spec.global_shape,
                               .view = zeros.flat(0, spec.elems())});
    }
  }
  // No data was consumed: an empty cursor. The run that starts from here brings its own.
  start_run_from(files, arguments.run, weights, std::move(table),
                 {.data_cursor = "",
                  .tokenizer = data::to_json(tokenizer),
                  .model = shape.to_json(),
                  .choices = "{}",
                  .config = "",
                  .config_hash = "",
                  .step_metrics = ""});
  fmt::print("{}: {} tensors, {} parameters\n", source_path.string(), tensors.size(), imported_elems);
  ModelKeys keys = keys_of(shape);
  std::erase_if(keys, [](const auto& entry) { return entry.second.empty(); });
  fmt::print("train with: {} {}\n", shell_quote("run.dir=" + arguments.run.string()), to_text(keys));
  return 0;
}

}  // namespace strake::launch
