#include "launch/exit_report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "runtime/base/error.h"
#include "runtime/base/line_output.h"

namespace strake::launch {

int report_error(const std::exception& error, int rank, int ranks) {
  const std::string prefix = ranks > 1 ? fmt::format("strake: error: rank {}: ", rank) : "strake: error: ";
  std::string out = prefix;
  for (const char c : std::string_view(error.what())) {
    out += c;
    if (c == '\n') out += prefix;  // a report of several problems: each line stands for itself
  }
  out += '\n';
  // One write(2): lines of several ranks do not mix. A reader that is gone or stuck must not change how we end.
  write_lines(STDERR_FILENO, out);
  const auto* ours = dynamic_cast<const Error*>(&error);
  return ours != nullptr ? static_cast<int>(ours->exit_code()) : EXIT_FAILURE;
}

}  // namespace strake::launch
