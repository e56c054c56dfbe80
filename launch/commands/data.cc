#include <fmt/format.h>

#include "launch/commands/commands.h"
#include "runtime/base/home_path.h"
#include "runtime/io/files.h"

namespace strake::launch {

int prepare_data(data::PrepareOptions options) {
  for (std::filesystem::path& input : options.inputs) input = expand_home(input.string());
  options.train = expand_home(options.train.string());
  options.val = expand_home(options.val.string());
  PosixFiles files;
  const data::PrepareResult result = data::prepare(files, options);
  fmt::print("{} bytes of text\n{}: {} tokens to train on\n", result.input_bytes, result.train.string(),
             result.train_tokens);
  if (result.val.empty()) {
    fmt::print("nothing is held out: --val FILE keeps the end of the text for the held-out loss\n");
  } else {
    fmt::print("{}: {} held-out tokens\n", result.val.string(), result.val_tokens);
  }
  return 0;
}

}  // namespace strake::launch
