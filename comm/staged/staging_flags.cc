#include "comm/staged/staging_flags.h"

#include "runtime/base/poll_until.h"

namespace strake::comm {

bool StagingFlags::await(std::int64_t chunk) {
  HostFlag& handed_over = handed_over_[slot(chunk)];
  poll_until([&] { return handed_over.is_up() || released_.load(std::memory_order_relaxed); });
  if (released_.load(std::memory_order_relaxed)) return false;
  handed_over.lower();
  return true;
}

void StagingFlags::give_back(std::int64_t chunk) {
  const std::lock_guard lock(release_mutex_);
  if (released_.load(std::memory_order_relaxed)) return;
  returned_[slot(chunk + 1)].lower();
  returned_[slot(chunk)].raise();
}

void StagingFlags::release() noexcept {
  const std::lock_guard lock(release_mutex_);
  released_.store(true, std::memory_order_relaxed);
  for (HostFlag& flag : returned_) flag.raise();
}

}  // namespace strake::comm
