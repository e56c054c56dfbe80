// prepare: text files -> a training and a held-out token file. What `strake data prepare` does.
//
// The inputs are read as one text, in the order given, byte for byte, and never held in memory. What can be read only
// once (standard input, a pipe) is put beside the output for as long as it takes: the held-out part is the text's tail,
// cut behind the end of a line, and where that begins is known only at the end.
// A token file of more tokens than a header can count has none (layout raw): its sidecar says what it holds.
// An output that is a link is written where the link leads, its sidecar too. Nothing but token files and their sidecars
// is replaced, and nothing that is read.
// Threads: one call at a time for each output. Errors: DataError for the inputs, ConfigError for the options, IoError
// for the outputs; then the old outputs, if any, are as they were, unless only the last renaming failed.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/token_file_format.h"
#include "runtime/io/files.h"

namespace strake::data {

struct PrepareOptions {
  std::vector<std::filesystem::path> inputs;  // "-": standard input
  std::filesystem::path train;                // token file to write; its folder must exist
  std::filesystem::path val;                  // held-out token file; empty: nothing is held out
  std::optional<double> val_fraction = {};    // of the bytes, in (0, 1); not set: kValFraction, if there is `val`
  std::string source;                         // description for the sidecars; empty: the inputs' names
  int standard_input = STDIN_FILENO;          // descriptor
  std::int64_t most_header_tokens = kMaxHeaderTokens;

  static constexpr double kValFraction = 0.1;
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
