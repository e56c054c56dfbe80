#include "runtime/base/log.h"

#include <unistd.h>

#include <string>

namespace strake {

std::string Logger::format(LogLevel level, std::string_view text) const {
  std::string prefix = "strake: ";
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
  const std::string out = format(level, text);
  std::string_view rest = out;
  while (!rest.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (written <= 0) return;
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace strake
