#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "launch/commands/commands.h"
#include "runtime/base/home_path.h"
#include "runtime/io/files.h"

namespace strake::launch {
namespace {

// "1 byte", "2 bytes".
std::string counted(std::int64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

}  // namespace

int prepare_data(data::PrepareOptions options) {
  for (std::filesystem::path& input : options.inputs) input = expand_home(input.string());
  options.train = expand_home(options.train.string());
  options.val = expand_home(options.val.string());
  PosixFiles files;
  const data::PrepareResult result = data::prepare(files, options);
  fmt::print("{} of text\n{}: {} to train on\n", counted(result.input_bytes, "byte"), result.train.string(),
             counted(result.train_tokens, "token"));
  if (result.val.empty()) {
    fmt::print("nothing is held out: --val FILE keeps the end of the text for the held-out loss\n");
  } else {
    fmt::print("{}: {}\n", result.val.string(), counted(result.val_tokens, "held-out token"));
  }
  return 0;
}

}  // namespace strake::launch
