#include "launch/commands/host_weights.h"

#include <fmt/format.h>

#include <utility>

#include "checkpoint/checkpointer.h"
#include "comm/threads/threads_world.h"
#include "models/parameters/owned_ranges.h"
#include "models/transformer.h"
#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"

namespace strake::launch {
namespace {

namespace fs = std::filesystem;

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

}  // namespace

HostWeights::HostWeights(const models::TransformerShape& shape)
    : layout(models::parameters_of(shape)),
      device(make_cpu_device()),
      stream(device->make_stream("copy", StreamPriority::kNormal)),
      flat(reserve()) {}

void HostWeights::append_to(TensorTable& table, const std::string& prefix, const Tensor& flat_tensor) const {
  models::append_ranges(table, prefix, layout, flat_tensor);
}

void read_into(Files& files, const checkpoint::FoundCheckpoint& found, const HostWeights& weights,
               const TensorTable& table) {
  Arena staging_memory("staging", MemoryKind::kHost);
  const Tensor staging = Tensor::reserve(staging_memory, DType::kU8, {4 << 20});
  staging_memory.allocate(*weights.device);
  checkpoint::read_tensors(files, found, table, found.manifest.meta.model, *weights.stream, staging);
}

void start_run_from(Files& files, const fs::path& run, const HostWeights& weights, TensorTable table,
                    checkpoint::Meta meta) {
  const RunFolder folder = take_run_folder(files, run);
  Arena staging("staging", MemoryKind::kHost);
  comm::ThreadsWorld world(1);
  const std::unique_ptr<comm::Control> control = world.make_control(0);
  checkpoint::Checkpointer checkpointer(files, *control, *weights.device, *weights.stream, staging, std::move(table),
                                        {.directory = checkpoint_folder(run), .attempt = folder.attempt()});
  staging.allocate(*weights.device);
  Event filled = weights.device->make_event("weights are there");
  weights.stream->record(filled);
  meta.attempt = folder.attempt();
  checkpointer.save(filled, meta);
}

}  // namespace strake::launch
