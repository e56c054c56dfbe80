// FolderLock: exclusive use of a folder by one process, also where other hosts see it.
//
// A lock file in the folder names its holder. Where the kernel's lock of it reaches every host that uses the file
// system (runtime/io/lock_reach.h), that lock decides, and ends with its process. Elsewhere the holder gives signs of
// life: it rewrites the file every LockTiming::beat. Another process that has seen the file unchanged for
// LockTiming::stale, by its own clock, takes it over; clocks of two hosts are never compared. The rule is in
// checkpoint/format.md.
//
// A holder that stood still for so long may have lost its lock: it sees so at its next sign of life and says it, and
// require_held() keeps it from writing.
// Threads: made, asked and destroyed by one; signs of life are given by a thread of its own. `files` outlives it.
// Errors: ConfigError naming the holder; IoError. Of the thread: none, a missed sign is made up for by the next.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "runtime/io/files.h"

namespace strake::checkpoint {

using Log = std::function<void(std::string_view line)>;

struct LockTiming {
  std::chrono::milliseconds beat{5'000};     // between two signs of life
  std::chrono::milliseconds stale{30'000};   // without one: the holder is taken for dead
  std::chrono::milliseconds lease{120'000};  // how long a file server may keep the locks of a host that has died
  std::chrono::milliseconds look{1'000};     // between two looks at another's lock
  std::chrono::milliseconds settle{2'000};   // until one of two that took it over at once looks whether it is the one
};

// Who holds a lock. `boot` names one start of one kernel: processes with the same one share its locks.
struct LockHolder {
  std::string host;
  std::int64_t process = 0;
  std::string boot;  // empty: not known
  static LockHolder this_process();
};

// The time of a process that waits for another's lock.
class LockClock {
 public:
  virtual ~LockClock() = default;
  virtual std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }
  virtual void sleep(std::chrono::milliseconds time) { std::this_thread::sleep_for(time); }
};

class FolderLock {
 public:
  // What tests put in the place of the real thing.
  struct Parts {
    LockTiming timing = {};
    LockHolder self = LockHolder::this_process();
    LockClock* clock = nullptr;  // null: this machine's
  };

  // Takes the lock file `path`, in a folder that exists. Waits only for the lock of another host, and says so in a
  // line; a take-over is a line too.
  FolderLock(Files& files, std::filesystem::path path, Log log);
  FolderLock(Files& files, std::filesystem::path path, Log log, Parts parts);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  // Throws ConfigError if another process has taken the lock since, or somebody has removed it.
  void require_held();
  // One sign of life, as its thread gives them. False: the lock is lost; its file is left as it is.
  bool beat();

 private:
  void acquire(LockClock& clock);
  void claim(bool kernel_decides, LockClock& clock);
  void write_text();
  std::string read_text() const;
  bool is_ours(std::string_view text) const;
  void beat_until_stopped();

  Files& files_;
  const std::filesystem::path path_;
  const Log log_;
  const LockTiming timing_;
  const LockHolder self_;
  std::unique_ptr<File> file_;  // open: has the kernel's lock, if there is one
  bool beats_ = false;
  std::int64_t beats_done_ = 0;  // the thread's while it runs, as is writing to file_
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace strake::checkpoint
