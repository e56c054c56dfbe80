#include "runtime/base/poll_until.h"

#include <sys/prctl.h>

#include <thread>

namespace strake {

void sleep_precisely(std::chrono::nanoseconds duration) {
  [[maybe_unused]] thread_local const int slack_is_set = prctl(PR_SET_TIMERSLACK, 5000UL);
  std::this_thread::sleep_for(duration);
}

}  // namespace strake
