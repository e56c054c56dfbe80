// The small commands of `strake`; each prints to standard output and returns the exit code. Training is in
// launch/train/train.h. Threads: the main thread. Errors: thrown, for main() to map.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "checkpoint/retention.h"
#include "data/prepare.h"
#include "runtime/base/dtype.h"

namespace strake::launch {

// A leading ~ of paths is expanded.
int prepare_data(data::PrepareOptions options);

struct ListArguments {
  std::filesystem::path path;  // run folder, folder of checkpoints, or one checkpoint
  bool verify = false;         // read every byte of each
  bool json = false;           // one JSON object (docs/formats.md) instead of lines
};
// Says "whole" only of what was verified, and throws CorruptError behind the list if any of it is damaged.
int list_checkpoints(const ListArguments& arguments);
// Reads every byte of each, `path` as above; throws CorruptError naming what is damaged in any.
int verify_checkpoints(const std::filesystem::path& path);

struct PruneArguments {
  std::filesystem::path run;  // run folder, or folder of checkpoints
  checkpoint::Retention rule;
  bool dry_run = false;  // say what would go
};
// Deletes what the rule does not keep, as a run does behind a save. ConfigError if a run is at work there.
int prune_checkpoints(const PruneArguments& arguments);

struct DiffArguments {
  std::filesystem::path a, b;  // run folder (its newest checkpoint), or one checkpoint
};
// Whatever ranks wrote them. Returns 0 if all tensors are equal bit for bit, 1 otherwise.
int diff_checkpoints(const DiffArguments& arguments);

struct ViewArguments {
  std::filesystem::path path;  // run folder (its newest checkpoint), or one checkpoint
  std::filesystem::path out;   // HDF5 file that gets a dataset for each tensor, of the ranks' files
};
int view_checkpoint(const ViewArguments& arguments);

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
// Memory for the largest parameter, whatever the model has.
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
