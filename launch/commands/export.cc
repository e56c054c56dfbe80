// `strake export`: the weights of a checkpoint as other programs read them, parameter by parameter.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/compatibility.h"
#include "checkpoint/safetensors_set.h"
#include "checkpoint/tensor_reader.h"
#include "data/tokenizer_identity.h"
#include "launch/commands/commands.h"
#include "launch/commands/host_weights.h"
#include "launch/run/checkpoint_model.h"
#include "launch/run/checkpoint_source.h"
#include "models/formats/hugging_face.h"
#include "models/transformer.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

namespace fs = std::filesystem;
using models::ForeignTensor;

// What is in the folder is not lost to an export, unless it is an older one of the same family.
void require_no_stranger(Files& files, const fs::path& folder, std::string_view family) {
  const fs::path config = folder / kHuggingFaceConfig, weights = folder / checkpoint::kSafetensorsName;
  const fs::path index = folder / fmt::format("{}.index.json", checkpoint::kSafetensorsName);
  if (!files.exists(config) && !files.exists(weights) && !files.exists(index)) return;
  if (files.exists(config)) {
    std::string text;
    try {
      text = read_file(files, config, kMaxHuggingFaceConfigBytes);
    } catch (const Error&) {  // too large, a folder: not an export's
    }
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (json.is_object() && json.value("model_type", nlohmann::json()) == family) return;
  }
  throw ConfigError(fmt::format(
      "--out: {} is there, and no model_type \"{}\" in {} says that it is an export; name another folder, or remove it",
      (files.exists(config)    ? config
       : files.exists(weights) ? weights
                               : index)
          .string(),
      family, kHuggingFaceConfig));
}

// Parameters of a checkpoint, one after the other.
class ParamReader {
 public:
  ParamReader(Files& files, const checkpoint::FoundCheckpoint& found, const ParamLayout& layout)
      : found_(found), layout_(layout), reader_(files, found) {
    std::vector<checkpoint::HeldRange> wanted;
    for (const ParamSpec& spec : layout.specs()) {
      wanted.push_back({.name = name_in_checkpoint(spec), .global_shape = spec.global_shape, .elems = spec.elems()});
    }
    check_compatible(found.manifest, wanted, found.manifest.meta.model, checkpoint::ExtraTensors::kIgnore,
                     found.path.string());
  }

  // As it is stored. Valid until the next call.
  std::span<const float> read(ParamId id) {
    if (id != read_) {  // several tensors of theirs may be one of ours
      const ParamSpec& spec = layout_.spec(id);
      values_.resize(static_cast<std::size_t>(spec.elems()));
      reader_.read(*found_.manifest.find(name_in_checkpoint(spec)), 0, std::as_writable_bytes(std::span(values_)));
      read_ = id;
    }
    return values_;
  }

 private:
  static std::string name_in_checkpoint(const ParamSpec& spec) { return "param/" + spec.name; }

  const checkpoint::FoundCheckpoint& found_;
  const ParamLayout& layout_;
  checkpoint::TensorReader reader_;
  std::optional<ParamId> read_;
  std::vector<float> values_;
};

// By name: the order in which Hugging Face's own writer puts tensors of one dtype.
std::vector<ForeignTensor> tensors_by_name(const models::TransformerShape& shape) {
  std::vector<ForeignTensor> tensors = models::hugging_face_tensors(shape);
  for (ForeignTensor& tensor : tensors) tensor.name = models::with_hugging_face_prefix(shape, tensor.name);
  std::ranges::sort(tensors, {}, &ForeignTensor::name);
  return tensors;
}

void export_checkpoint(Files& files, const checkpoint::FoundCheckpoint& found, const ExportArguments& arguments) {
  const models::TransformerShape shape = model_of(found);
  require_no_stranger(files, arguments.out, models::family_of(shape));
  const ParamLayout layout = models::parameters_of(shape);
  ParamReader params(files, found, layout);
  const data::TokenizerIdentity tokenizer =
      data::tokenizer_from_json(found.manifest.meta.tokenizer, found.path.string());
  const std::vector<ForeignTensor> tensors = tensors_by_name(shape);
  std::vector<checkpoint::SafetensorsSpec> specs;
  for (const ForeignTensor& tensor : tensors)
    specs.push_back({.name = tensor.name, .dtype = arguments.dtype, .shape = tensor.shape});
  // "<|endoftext|>" of GPT-2's own vocabulary.
  const std::int64_t end_of_text = tokenizer.name == "gpt2" && shape.vocab == 50257 ? 50256 : -1;
  checkpoint::use_folder(fmt::format("--out: {}", arguments.out.string()), [&] {
    files.make_directories(arguments.out);
    write_file_durably(files, arguments.out / kHuggingFaceConfig,
                       models::hugging_face_config(shape, arguments.dtype, end_of_text));
  });
  checkpoint::SafetensorsSetWriter writer(files, arguments.out, specs, arguments.max_file_bytes, {{"format", "pt"}});
  std::vector<float> theirs;
  std::vector<BFloat16> rounded;
  for (const ForeignTensor& tensor : tensors) {
    theirs.resize(static_cast<std::size_t>(tensor.elems()));
    models::copy_to(tensor, layout.spec(tensor.param), params.read(tensor.param), theirs);
    if (arguments.dtype == DType::kBF16) {
      rounded.resize(theirs.size());
      std::transform(theirs.begin(), theirs.end(), rounded.begin(), to_bfloat16);
      writer.append(std::as_bytes(std::span(rounded)));
    } else {
      writer.append(std::as_bytes(std::span(theirs)));
    }
  }
  writer.finish();
  fmt::print("{}: {} tensors{}, step {} of {}\n", writer.entry().string(), tensors.size(),
             writer.file_count() > 1 ? fmt::format(" in {} files", writer.file_count()) : "", found.manifest.meta.step,
             found.path.string());
}

}  // namespace

int export_weights(const ExportArguments& arguments) {
  PosixFiles files;
  checkpoint::use_folder(fmt::format("--out: {}", arguments.out.string()), [&] {
    require_folder(files, "--out", arguments.out);
    require_outside_checkpoints(files, "--out", arguments.out);
  });
  CheckpointSource source(files, arguments.path);
  // One that turns out damaged leaves nothing behind but its config, which is that of the next older one.
  use_checkpoint(source, [&](const checkpoint::FoundCheckpoint& found) { export_checkpoint(files, found, arguments); });
  return 0;
}

}  // namespace strake::launch
