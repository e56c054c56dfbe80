#include "checkpoint/verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "checkpoint/shard_file.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::checkpoint {
namespace {

// The chunks of all files, counted through, for whoever comes next; and what was wrong with them.
class ChunkQueue {
 public:
  ChunkQueue(Files& files, const std::filesystem::path& folder, const Manifest& manifest)
      : files_(files), folder_(folder), manifest_(manifest) {
    for (const FileRecord& record : manifest.files) {
      first_of_.push_back(size_);
      size_ += record.chunk_crcs.size();
    }
  }
  std::size_t size() const { return size_; }

  // Checks chunks until none is left; by any number of threads.
  void work() {
    try {
      std::unique_ptr<ChunkReader> reader;
      std::size_t open = 0;  // which file it reads
      for (std::size_t taken; !stopped_.load(std::memory_order_relaxed) && (taken = next_.fetch_add(1)) < size_;) {
        const auto behind = std::upper_bound(first_of_.begin(), first_of_.end(), taken);
        const auto file = static_cast<std::size_t>(behind - first_of_.begin()) - 1;
        try {
          if (reader == nullptr || open != file)
            reader = std::make_unique<ChunkReader>(files_, folder_, manifest_.files[open = file]);
          reader->read(taken - first_of_[file]);
        } catch (const CorruptError& error) {
          const std::lock_guard guard(mutex_);
          damage_.emplace(taken, error);
        }
      }
    } catch (...) {  // it cannot be read, which is not damage
      const std::lock_guard guard(mutex_);
      if (failure_ == nullptr) failure_ = std::current_exception();
      stopped_.store(true, std::memory_order_relaxed);
    }
  }

  // REQUIRES: nobody works any more.
  void report() const {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
    if (damage_.empty()) return;
    const CorruptError& first = damage_.begin()->second;
    if (damage_.size() == 1) throw first;
    throw CorruptError(fmt::format("{} (and {} more like it)", first.what(), damage_.size() - 1), first.path,
                       first.offset_bytes);
  }

 private:
  Files& files_;
  const std::filesystem::path& folder_;
  const Manifest& manifest_;
  std::vector<std::size_t> first_of_;  // of each file, its first chunk; empty files share one with the next
  std::size_t size_ = 0;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;                            // of what follows
  std::map<std::size_t, CorruptError> damage_;  // by chunk
  std::exception_ptr failure_;
};

}  // namespace

void check_every_byte(Files& files, const std::filesystem::path& folder, const Manifest& manifest, int threads) {
  STRAKE_CHECK(threads >= 1, "somebody reads");
  ChunkQueue queue(files, folder, manifest);
  std::vector<std::thread> others;
  const std::size_t useful = std::min(static_cast<std::size_t>(threads), queue.size());
  for (std::size_t i = 1; i < useful; ++i) others.emplace_back([&queue] { queue.work(); });
  queue.work();
  for (std::thread& other : others) other.join();
  queue.report();
}

}  // namespace strake::checkpoint
