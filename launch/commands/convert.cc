// `strake ckpt convert`: a checkpoint of an earlier version, moments included, as this version stores it.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "launch/commands/commands.h"
#include "launch/commands/host_weights.h"
#include "launch/report/run_report.h"
#include "launch/run/checkpoint_source.h"
#include "models/formats/counted_storage.h"
#include "models/parameters/owned_ranges.h"
#include "runtime/base/error.h"
#include "runtime/device/host_memory.h"

namespace strake::launch {
namespace {

using models::ForeignTensor;

// What a run keeps of every parameter.
constexpr std::string_view kState[] = {"param/", "adam_m/", "adam_v/"};

// A checkpoint in memory, as it was stored; each state's tensors lie where they will be stored in today's order.
struct Converted {
  explicit Converted(const models::TransformerShape& model) : shape(model), weights(shape) {
    state = {weights.flat, weights.reserve(), weights.reserve()};
    weights.memory.allocate(*weights.device);
  }
  models::TransformerShape shape;
  HostWeights weights;
  std::vector<Tensor> state;  // as kState
};

std::unique_ptr<Converted> read_and_convert(Files& files, const checkpoint::FoundCheckpoint& found) {
  const std::optional<models::TransformerShape> shape = models::shape_of_counted_storage(found.manifest.meta.model);
  if (!shape.has_value()) {
    throw ConfigError(fmt::format("{}: is not of an earlier version; there is nothing to convert, use it as it is",
                                  found.path.string()));
  }
  const std::vector<ForeignTensor> tensors = models::counted_storage_tensors(*shape);
  auto converted = std::make_unique<Converted>(*shape);
  const HostWeights& weights = converted->weights;
  if (found.manifest.tensors.size() != std::size(kState) * tensors.size()) {
    throw IncompatibleCheckpointError(
        fmt::format("{}: has {} tensors, a GPT-2 of an earlier version {}; take the version that wrote it",
                    found.path.string(), found.manifest.tensors.size(), std::size(kState) * tensors.size()));
  }
  TensorTable stored;
  for (std::size_t i = 0; i < std::size(kState); ++i) {
    for (const ForeignTensor& tensor : tensors) {
      stored.entries.push_back({.name = fmt::format("{}{}", kState[i], tensor.name),
                                .global_shape = tensor.shape,
                                .view = weights.view(converted->state[i], tensor.param)});
    }
  }
  read_into(files, found, weights, stored);
  std::vector<float> old;
  for (const Tensor& flat : converted->state) {
    for (const ForeignTensor& tensor : tensors) {
      const std::span<float> values = host_span<float>(weights.view(flat, tensor.param));
      old.assign(values.begin(), values.end());
      models::copy_from(tensor, weights.layout.spec(tensor.param), old, values);
    }
  }
  return converted;
}

}  // namespace

int convert_checkpoint(const ConvertArguments& arguments) {
  PosixFiles files;
  require_new_run(files, arguments.run);
  CheckpointSource source(files, arguments.path);
  checkpoint::FoundCheckpoint found;
  std::unique_ptr<Converted> converted;
  use_checkpoint(source, [&](const checkpoint::FoundCheckpoint& newest) {
    found = newest;
    converted = read_and_convert(files, found);
  });
  TensorTable table;
  for (std::size_t i = 0; i < std::size(kState); ++i) {
    models::append_ranges(table, kState[i], converted->weights.layout, converted->state[i]);
  }
  checkpoint::Meta meta = found.manifest.meta;
  meta.model = converted->shape.to_json();
  start_run_from(files, arguments.run, converted->weights, std::move(table), meta);
  fmt::print("{}: {} tensors, step {} of {}\n", arguments.run.string(), found.manifest.tensors.size(), meta.step,
             found.path.string());
  fmt::print("go on with: {}\n", shell_quote("run.dir=" + arguments.run.string()));
  return 0;
}

}  // namespace strake::launch
