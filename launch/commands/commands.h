// The small commands of `strake`; each prints to standard output and returns the exit code. Training is in
// launch/train/train.h. Threads: the main thread. Errors: thrown, for main() to map.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/prepare.h"
#include "runtime/base/dtype.h"

namespace strake::launch {

// A leading ~ of paths is expanded.
int prepare_data(data::PrepareOptions options);

// `path` is a run folder, a folder of checkpoints, or (verify) one checkpoint. The list says "whole" only of what was
// verified: with `verify` it reads every byte of each, and throws CorruptError behind the list if any is damaged.
int list_checkpoints(const std::filesystem::path& path, bool verify);
// Reads every byte of each; throws CorruptError naming what is damaged in any.
int verify_checkpoints(const std::filesystem::path& path);

struct ImportArguments {
  std::filesystem::path source;  // Hugging Face's folder of a model, or a file in it
  std::filesystem::path run;     // run folder that gets a checkpoint at step 0; must not hold a run
  std::string tokenizer = "unknown";
  std::int64_t sequence = 0;  // tokens that the run trains on at once; 0: the most that config.json names
};
// Weights go through host memory, with both moments: 16 bytes a parameter.
int import_weights(const ImportArguments& arguments);

struct ExportArguments {
  std::filesystem::path path;                 // run folder (its newest checkpoint), or one checkpoint
  std::filesystem::path out;                  // folder that gets model.safetensors and config.json
  DType dtype = DType::kF32;                  // or kBF16
  std::uint64_t max_file_bytes = UINT64_MAX;  // of tensors in one file; more go to further files and an index of them
};
int export_weights(const ExportArguments& arguments);

struct ConvertArguments {
  std::filesystem::path path;  // run folder (its newest checkpoint), or one checkpoint, of an earlier version
  std::filesystem::path run;   // run folder that gets it as this version stores it; must not hold a run
};
// The whole state goes through host memory twice: 24 bytes a parameter.
int convert_checkpoint(const ConvertArguments& arguments);

int show_info();
int show_keys();

}  // namespace strake::launch
// Memory for the largest parameter, whatever the model has.
