// Logger: one line a message on standard error, "strake: [rank 3] warning: disk is nearly full".
//
// A small value that is passed down; there is no global one, so that ranks as threads keep their own.
// By default rank 0 says everything from kInfo, the other ranks only warnings and errors. While a run is on, its
// messages go through a sink, which also draws how far it is.
// Threads: any; a line is one write(2), so lines of threads and ranks do not mix. Errors: none; a line
// that cannot be written is lost.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace strake {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning, kError };

class Logger;

// Takes messages in place of standard error. Threads: any.
class LogSink {
 public:
  virtual ~LogSink() = default;
  // `text` may hold several lines; `from` formats them.
  virtual void message(const Logger& from, LogLevel level, std::string_view text) = 0;
};

class Logger {
 public:
  // The Logger of the only rank.
  Logger() = default;
  explicit Logger(int rank, int ranks) : Logger(rank, ranks, rank == 0 ? LogLevel::kInfo : LogLevel::kWarning) {}
  Logger(int rank, int ranks, LogLevel least) : rank_(rank), ranks_(ranks), least_(least) {}

  template <typename... Args>
  void debug(fmt::format_string<Args...> text, Args&&... args) const {
    line(LogLevel::kDebug, text, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void info(fmt::format_string<Args...> text, Args&&... args) const {
    line(LogLevel::kInfo, text, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void warning(fmt::format_string<Args...> text, Args&&... args) const {
    line(LogLevel::kWarning, text, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void error(fmt::format_string<Args...> text, Args&&... args) const {
    line(LogLevel::kError, text, std::forward<Args>(args)...);
  }

  // As this one, but its messages go to `sink`, which outlives every copy.
  Logger to(LogSink& sink) const {
    Logger out = *this;
    out.sink_ = &sink;
    return out;
  }

  int rank() const { return rank_; }
  bool says(LogLevel level) const { return level >= least_; }
  // Writes `text`, which may hold several lines: each gets the prefix.
  void write(LogLevel level, std::string_view text) const;
  // What write() puts on standard error. `stamp`: a time, for each line.
  std::string format(LogLevel level, std::string_view text, std::string_view stamp = {}) const;

 private:
  template <typename... Args>
  void line(LogLevel level, fmt::format_string<Args...> text, Args&&... args) const {
    if (says(level)) write(level, fmt::format(text, std::forward<Args>(args)...));
  }

  int rank_ = 0;
  int ranks_ = 1;
  LogLevel least_ = LogLevel::kInfo;
  LogSink* sink_ = nullptr;  // null: straight to standard error
};

}  // namespace strake
