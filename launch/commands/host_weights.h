// Weights in host memory, on their way between a checkpoint and other files, and the run folder that they become a
// checkpoint of.
//
// Threads: the main thread. Errors: ConfigError for a folder that may not be written to; IoError.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>

#include "checkpoint/meta.h"
#include "checkpoint/reader.h"
#include "launch/run/run_folder.h"
#include "models/transformer_shape.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"
#include "runtime/io/files.h"

namespace strake::launch {

// What stands beside weights of Hugging Face and says what model they are of.
inline constexpr std::string_view kHuggingFaceConfig = "config.json";
inline constexpr std::uint64_t kMaxHuggingFaceConfigBytes = 1 << 20;

// A flat f32 tensor for all parameters of a model, and more of the same layout: zero once memory is allocated.
struct HostWeights {
  explicit HostWeights(const models::TransformerShape& shape);

  Tensor reserve() { return Tensor::reserve(memory, DType::kF32, {layout.total_elems()}); }
  Tensor view(const Tensor& flat_tensor, ParamId id) const {
    return layout.view(flat_tensor, id).reshape({layout.spec(id).elems()});
  }
  Tensor view(ParamId id) const { return view(flat, id); }

  ParamLayout layout;
  std::unique_ptr<Device> device;
  Arena memory{"weights", MemoryKind::kHost};
  std::unique_ptr<Stream> stream;
  Tensor flat;
};

// Fills the tensors of the table, which are in host memory. Errors: as checkpoint::read_tensors.
void read_into(Files& files, const checkpoint::FoundCheckpoint& found, const HostWeights& weights,
               const TensorTable& table);

// No file is where `folder` or one above it should be. `option`, here and below, names what says so.
void require_folder(Files& files, std::string_view option, const std::filesystem::path& folder);
// Folders of checkpoints hold nothing else.
void require_outside_checkpoints(Files& files, std::string_view option, const std::filesystem::path& folder);
// `run`, said by --run, may become a run folder: before hours are spent on what it will hold. What else is in it stays.
void require_new_run(Files& files, const std::filesystem::path& run);
// Makes the run folder, which must be new as above, and writes the table, all of it in the memory of `weights`, as its
// only checkpoint, which any number of ranks may start from.
void start_run_from(Files& files, const std::filesystem::path& run, const HostWeights& weights, TensorTable table,
                    checkpoint::Meta meta);

}  // namespace strake::launch
