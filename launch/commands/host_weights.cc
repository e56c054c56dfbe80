#include "launch/commands/host_weights.h"

#include <fmt/format.h>

#include <utility>

#include "checkpoint/checkpointer.h"
#include "comm/threads/threads_world.h"
#include "models/transformer.h"
#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"

namespace strake::launch {
namespace fs = std::filesystem;

HostWeights::HostWeights(const models::TransformerShape& shape)
    : layout(models::parameters_of(shape)),
      device(make_cpu_device()),
      stream(device->make_stream("copy", StreamPriority::kNormal)),
      flat(reserve()) {}

void read_into(Files& files, const checkpoint::FoundCheckpoint& found, const HostWeights& weights,
               const TensorTable& table) {
  Arena staging_memory("staging", MemoryKind::kHost);
  const Tensor staging = Tensor::reserve(staging_memory, DType::kU8, {4 << 20});
  staging_memory.allocate(*weights.device);
  checkpoint::read_tensors(files, found, table, found.manifest.meta.model, *weights.stream, staging);
}

void require_folder(Files& files, std::string_view option, const fs::path& folder) {
  fs::path there = folder;
  while (there.has_relative_path() && !files.exists(there)) there = there.parent_path();
  if (files.exists(there) && !files.is_directory(there)) {
    throw ConfigError(fmt::format("{}: {} is a file; name a folder", option, there.string()));
  }
}

// Whatever run they are of. Folders above that hold no checkpoints are not looked into: that may not be allowed.
void require_outside_checkpoints(Files& files, std::string_view option, const fs::path& folder) {
  std::error_code ignored;
  fs::path at = fs::weakly_canonical(folder, ignored);
  if (!at.has_filename()) at = at.parent_path();  // "ckpt/"
  for (; at.has_relative_path(); at = at.parent_path()) {
    if (!checkpoint::step_of(at.filename().string()) &&
        !(at == checkpoint_folder(at.parent_path()) && !checkpoint::committed_steps(files, at).empty())) {
      continue;
    }
    throw ConfigError(fmt::format("{}: {} is in a folder of checkpoints, which holds nothing else; name another folder",
                                  option, folder.string()));
  }
}

void require_new_run(Files& files, const fs::path& run) {
  checkpoint::use_folder(fmt::format("--run: {}", run.string()), [&] {
    require_folder(files, "--run", run);
    const fs::path checkpoints = checkpoint_folder(run);
    if (files.exists(run / "manifest.json") || files.exists(metrics_path(run)) ||
        !checkpoint::committed_steps(files, checkpoints).empty() ||
        !checkpoint::set_aside_steps(files, checkpoints).empty()) {
      throw ConfigError(fmt::format("--run: {} holds a run already; name a new folder", run.string()));
    }
  });
  require_outside_checkpoints(files, "--run", run);
}

void start_run_from(Files& files, const fs::path& run, const HostWeights& weights, TensorTable table,
                    checkpoint::Meta meta) {
  require_new_run(files, run);
  const RunFolder folder = RunFolder::start(files, run, Resume::kAuto);
  Arena staging("staging", MemoryKind::kHost);
  comm::ThreadsWorld world(1);
  const std::unique_ptr<comm::Control> control = world.make_control(0);
  checkpoint::Checkpointer checkpointer(files, *control, *weights.device, *weights.stream, {staging}, std::move(table),
                                        {.directory = checkpoint_folder(run), .attempt = folder.attempt()});
  staging.allocate(*weights.device);
  Event filled = weights.device->make_event("weights are there");
  weights.stream->record(filled);
  meta.attempt = folder.attempt();
  checkpointer.save(filled, meta);
}

}  // namespace strake::launch
