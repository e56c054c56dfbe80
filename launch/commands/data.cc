#include <fmt/format.h>

#include "launch/commands/commands.h"
#include "runtime/io/files.h"

namespace strake::launch {

int prepare_data(const data::PrepareOptions& options) {
  PosixFiles files;
  const data::PrepareResult result = data::prepare(files, options);
  fmt::print("{} bytes of text\n{}: {} tokens to train on\n", result.input_bytes, result.train.string(),
             result.train_tokens);
  if (!result.val.empty()) fmt::print("{}: {} held-out tokens\n", result.val.string(), result.val_tokens);
  return 0;
}

}  // namespace strake::launch
