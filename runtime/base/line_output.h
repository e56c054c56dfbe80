// LineOutput: lines for people on a terminal, a pipe or a file, without ever holding the program up.
//
// What cannot be written at once is dropped: the disk is full, the reader is gone, nobody empties the pipe or the
// terminal. The first line behind such a gap says how many are missing. The descriptor's own mode stays as it is, for
// it is shared with other processes: a pipe or terminal is opened once more for this object alone, and only that is
// non-blocking.
// Threads: one at a time. Errors: none; SIGPIPE does not reach the process.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace strake {

class LineOutput {
 public:
  // The line that stands where `lines` are missing.
  using Gap = std::function<std::string(std::int64_t lines)>;

  // `descriptor` outlives this object.
  LineOutput(int descriptor, Gap gap);
  ~LineOutput();
  LineOutput(const LineOutput&) = delete;
  LineOutput& operator=(const LineOutput&) = delete;

  // Ordering: one write(2) where `text` is not longer than PIPE_BUF, so lines of several processes do not mix.
  void write(std::string_view text);
  std::int64_t dropped_lines() const { return dropped_; }

 private:
  int descriptor_;
  int own_;  // the same pipe or terminal, non-blocking; -1: could not be opened, or is something else
  Gap gap_;
  std::int64_t dropped_ = 0, missing_ = 0;  // in all; since the last gap was told
  bool torn_ = false;                       // the last line was written in part
};

// The same for a line or two outside of a run: waits up to `patience` for the reader, then drops the rest.
// False: something was dropped.
bool write_lines(int descriptor, std::string_view text, std::chrono::milliseconds patience = std::chrono::seconds(1));

}  // namespace strake
