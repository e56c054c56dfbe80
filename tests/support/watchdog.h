// Watchdog: ends the program, with a line that names what hangs, when a scope does not end in time. For tests
// in which ranks wait for each other: a lost message must be a failure and not a timeout of the whole run.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

namespace strake::test {

class Watchdog {
 public:
  // `what`: the collective or protocol under test. The limit is far above any slow machine.
  explicit Watchdog(std::string what, std::chrono::seconds limit = std::chrono::seconds(150))
      : what_(std::move(what)), ended_(eventfd(0, EFD_CLOEXEC)), thread_([this, limit] { watch(limit); }) {}
  ~Watchdog() {
    const std::uint64_t one = 1;
    if (write(ended_, &one, sizeof one) != sizeof one) std::abort();
    thread_.join();
    close(ended_);
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void watch(std::chrono::milliseconds limit) {
    pollfd descriptor{.fd = ended_, .events = POLLIN, .revents = 0};
    if (poll(&descriptor, 1, static_cast<int>(limit.count())) != 0) return;
    std::fprintf(stderr, "watchdog: '%s' still hangs after %lld ms\n", what_.c_str(),
                 static_cast<long long>(limit.count()));
    std::abort();
  }

  const std::string what_;
  const int ended_;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace strake::test
