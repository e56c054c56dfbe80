#include "runtime/base/log.h"

#include <unistd.h>

#include <string>

#include "runtime/base/line_output.h"

namespace strake {

std::string Logger::format(LogLevel level, std::string_view text, std::string_view stamp) const {
  std::string prefix = "strake: ";
  if (!stamp.empty()) prefix += fmt::format("{} ", stamp);
  // What rank 0 says about the run as a whole needs no rank; a warning does.
  if (ranks_ > 1 && (rank_ != 0 || level >= LogLevel::kWarning)) prefix += fmt::format("[rank {}] ", rank_);
  if (level == LogLevel::kDebug) prefix += "debug: ";
  if (level == LogLevel::kWarning) prefix += "warning: ";
  if (level == LogLevel::kError) prefix += "error: ";

  std::string out;
  while (true) {
    const std::size_t end = text.find('\n');
    out += prefix;
    out += text.substr(0, end);
    out += '\n';
    if (end == std::string_view::npos) return out;
    text.remove_prefix(end + 1);
  }
}

void Logger::write(LogLevel level, std::string_view text) const {
  if (!says(level)) return;
  if (sink_ != nullptr) return sink_->message(*this, level, text);
  write_lines(STDERR_FILENO, format(level, text));
}

}  // namespace strake
