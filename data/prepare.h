// prepare: text files -> a training and a held-out token file. What `strake data prepare` does.
//
// The inputs are read as one text, in the order given, byte for byte, and never held in memory. The held-out part is
// its tail, cut behind the end of a line. Threads: one call at a time for each output. Errors: DataError for the
// inputs, ConfigError for the options, IoError for the outputs; then the old outputs, if any, are as they were, unless
// only the last renaming failed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "runtime/io/files.h"

namespace strake::data {

struct PrepareOptions {
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path train;  // token file to write; missing folders are made
  std::filesystem::path val;    // held-out token file; not used with val_fraction 0
  double val_fraction = 0.1;    // of the bytes, in [0, 1)
  std::string source;           // description for the sidecars; empty: the inputs' names
};

struct PrepareResult {
  std::int64_t input_bytes = 0;
  std::int64_t train_tokens = 0;
  std::int64_t val_tokens = 0;
  std::filesystem::path train;
  std::filesystem::path val;  // empty: none was asked for
};

PrepareResult prepare(Files& files, const PrepareOptions& options);

}  // namespace strake::data
