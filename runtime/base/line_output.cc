#include "runtime/base/line_output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <ctime>
#include <utility>

namespace strake {
namespace {

// Keeps the SIGPIPE of this thread's writes from the process: there it would end training, or tests, or whatever else.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigemptyset(&sigpipe_);
    sigaddset(&sigpipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &sigpipe_, &before_);
  }
  ~NoSigpipe() {
    if (sigismember(&before_, SIGPIPE) == 0) {
      const timespec at_once{};
      while (sigtimedwait(&sigpipe_, nullptr, &at_once) < 0 && errno == EINTR) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  sigset_t sigpipe_, before_;
};

bool can_write(int descriptor, std::chrono::milliseconds patience) {
  pollfd wanted{descriptor, POLLOUT, 0};
  int ready;
  do {
    ready = ::poll(&wanted, 1, static_cast<int>(patience.count()));
  } while (ready < 0 && errno == EINTR);
  return ready > 0 && (wanted.revents & POLLOUT) != 0;
}

// Whole lines that a pipe takes in one piece, if there are any.
std::size_t piece_bytes(std::string_view text) {
  if (text.size() <= PIPE_BUF) return text.size();
  const std::size_t end = text.rfind('\n', PIPE_BUF - 1);
  return end == std::string_view::npos ? std::size_t{PIPE_BUF} : end + 1;
}

// How many bytes of `text` were written. `asks`: the descriptor blocks, so it is asked before each piece.
std::size_t write_pieces(int descriptor, std::string_view text, bool asks, std::chrono::milliseconds patience) {
  const NoSigpipe guard;
  std::size_t done = 0;
  while (done < text.size()) {
    if (asks && !can_write(descriptor, patience)) break;
    const std::string_view rest = text.substr(done);
    const ssize_t written = ::write(descriptor, rest.data(), piece_bytes(rest));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    done += static_cast<std::size_t>(written);
  }
  return done;
}

// -1 where it is neither a pipe nor a terminal: writes to files do not wait for anybody.
int open_again(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || (!S_ISFIFO(status.st_mode) && ::isatty(descriptor) == 0)) return -1;
  return ::open(fmt::format("/proc/self/fd/{}", descriptor).c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

std::int64_t lines_of(std::string_view text) { return std::count(text.begin(), text.end(), '\n'); }

}  // namespace

LineOutput::LineOutput(int descriptor, Gap gap)
    : descriptor_(descriptor), own_(open_again(descriptor)), gap_(std::move(gap)) {}

LineOutput::~LineOutput() {
  if (own_ >= 0) ::close(own_);
}

void LineOutput::write(std::string_view text) {
  // In one piece with what tells the gap: a few free bytes must not fill up with "1 line is missing".
  std::string before = torn_ ? "\n" : "";
  if (missing_ > 0) before += gap_(missing_);
  const std::string all = before + std::string(text);
  const bool asks = own_ < 0;
  const std::size_t done = write_pieces(asks ? descriptor_ : own_, all, asks, std::chrono::milliseconds(0));
  if (done > 0) torn_ = done < all.size() && all[done - 1] != '\n';
  if (done >= before.size()) missing_ = 0;
  const std::int64_t lost = lines_of(std::string_view(all).substr(std::max(done, before.size())));
  missing_ += lost;
  dropped_ += lost;
}

bool write_lines(int descriptor, std::string_view text, std::chrono::milliseconds patience) {
  return write_pieces(descriptor, text, true, patience) == text.size();
}

}  // namespace strake
