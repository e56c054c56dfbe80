#include "launch/job/exit_report.h"

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
  write_lines(STDERR_FILENO, out);
  const auto* ours = dynamic_cast<const Error*>(&error);
  return ours != nullptr ? static_cast<int>(ours->exit_code()) : static_cast<int>(ExitCode::kFailure);
}

void end_job(const std::exception& error, comm::Control& control, RankWatch* watch) {
  if (control.size() == 1) return;
  const int code = report_error(error, control.rank(), control.size());
  if (watch != nullptr) watch->said_why();
  control.abort(code);
}

void end_uncaught() {
  std::string what = "terminated without an exception";
  if (const std::exception_ptr current = std::current_exception(); current != nullptr) {
    try {
      std::rethrow_exception(current);
    } catch (const std::exception& error) {
      what = error.what();
    } catch (...) {
      what = "an exception that is no std::exception";
    }
  }
  write_lines(STDERR_FILENO, fmt::format("strake: internal error: not caught: {}\n", what));
  std::_Exit(static_cast<int>(ExitCode::kFailure));
}

}  // namespace strake::launch
