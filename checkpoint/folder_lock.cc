#include "checkpoint/folder_lock.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <utility>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/host_name.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxLockBytes = 4096;
// Of a lock whose holder has not written its name yet.
constexpr int kLooksForAName = 20;
constexpr std::chrono::milliseconds kLookForAName{10};
constexpr std::string_view kUnknownBoot = "-", kNoBeat = "-";

// What a lock file says: "host process boot beat\n".
struct LockText {
  LockHolder holder;
  bool beats = false;  // its holder gives signs of life
};

// nullopt: empty (released), or torn (its writer died in it). Without boot and beat: as earlier versions wrote it.
std::optional<LockText> parse(std::string_view text) {
  if (!text.ends_with('\n')) return std::nullopt;
  text.remove_suffix(1);
  std::vector<std::string_view> words;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find_first_of(" \n", begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  if (words.size() != 2 && words.size() != 4) return std::nullopt;
  LockText out;
  out.holder.host = words[0];
  const char* end = words[1].data() + words[1].size();
  const auto parsed = std::from_chars(words[1].data(), end, out.holder.process);
  if (words[0].empty() || parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  if (words.size() == 4) {
    if (words[2] != kUnknownBoot) out.holder.boot = words[2];
    out.beats = words[3] != kNoBeat;
  }
  return out;
}

bool lives(std::int64_t process) { return ::kill(static_cast<pid_t>(process), 0) == 0 || errno == EPERM; }

// Do both run on one kernel?
bool same_machine(const LockHolder& a, const LockHolder& b) {
  return a.boot.empty() || b.boot.empty() ? a.host == b.host : a.boot == b.boot;
}

std::string named(const std::optional<LockText>& text) {
  return text ? fmt::format("process {} on host {}", text->holder.process, text->holder.host)
              : std::string("another process");
}

ConfigError in_use(const fs::path& lock, const std::optional<LockText>& text) {
  return ConfigError(fmt::format("another run is at work in {}: {}; wait for it, stop it, or name another run folder",
                                 lock.parent_path().string(), named(text)));
}

ConfigError perhaps_in_use(const fs::path& lock, const std::optional<LockText>& text, std::string_view why) {
  return ConfigError(fmt::format("{}: locked by {}, {}; if it is dead, remove {}", lock.parent_path().string(),
                                 named(text), why, lock.string()));
}

double seconds(std::chrono::milliseconds time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

LockHolder LockHolder::this_process() {
  LockHolder self{host_name(), ::getpid(), {}};
  std::ifstream("/proc/sys/kernel/random/boot_id") >> self.boot;
  return self;
}

FolderLock::FolderLock(Files& files, fs::path path, Log log)
    : FolderLock(files, std::move(path), std::move(log), Parts{}) {}

FolderLock::FolderLock(Files& files, fs::path path, Log log, Parts parts)
    : files_(files),
      path_(std::move(path)),
      log_(std::move(log)),
      timing_(parts.timing),
      self_(std::move(parts.self)),
      file_(files.open(path_, OpenMode::kOpen)) {
  LockClock here;
  acquire(parts.clock != nullptr ? *parts.clock : here);
  if (beats_) thread_ = std::thread([this] { beat_until_stopped(); });
}

FolderLock::~FolderLock() {
  {
    const std::lock_guard guard(mutex_);
    stopping_ = true;
  }
  stopped_.notify_one();
  if (thread_.joinable()) thread_.join();
  try {
    if (!is_ours(read_text())) return;  // lost: it is another's
    file_->truncate(0);                 // released, not abandoned
    if (beats_) file_->sync();
  } catch (...) {  // then the next one finds the text of a process that has died
  }
}

void FolderLock::acquire(LockClock& clock) {
  std::string watched;  // the text of the holder that is waited for
  std::chrono::steady_clock::time_point since;
  int looks_for_a_name = kLooksForAName;
  for (std::chrono::milliseconds pause;; clock.sleep(pause)) {
    pause = timing_.look;
    const File::Lock taken = file_->try_lock();
    const bool kernel_knows_all = taken != File::Lock::kUnsupported && file_->lock_reach() != LockReach::kUnknown;
    beats_ = taken == File::Lock::kUnsupported || file_->lock_reach() != LockReach::kOneHost;
    const std::string text = read_text();
    const std::optional<LockText> other = parse(text);
    const auto take_over = [&](std::string_view why) {
      log_(fmt::format("{}: takes over the lock of {}, {}", path_.parent_path().string(), named(other), why));
      claim(kernel_knows_all, clock);
    };
    const bool here = other && same_machine(other->holder, self_);

    // Taken this moment, by one that is about to write its name.
    if (taken == File::Lock::kHeldByOther && text.empty() && looks_for_a_name-- > 0) {
      pause = kLookForAName;
      continue;
    }
    if (taken == File::Lock::kHeldByOther) {
      // Of this machine: it lives. Of another: it lives, or its host has died and the server does not know yet.
      if (!other || here || file_->lock_reach() == LockReach::kOneHost) throw in_use(path_, other);
    } else if (text.empty() || (kernel_knows_all && !other)) {
      return claim(kernel_knows_all, clock);
    } else if (kernel_knows_all) {
      return take_over(here ? "which has died" : "which no longer holds it");
    } else if (here &&
               (taken == File::Lock::kTaken || (other->holder.host == self_.host && !lives(other->holder.process)))) {
      return take_over("which has died");
    } else if (other && !other->beats) {
      throw perhaps_in_use(path_, other, "which gives no signs of life on this file system");
    }

    const auto limit = taken == File::Lock::kHeldByOther ? timing_.lease : timing_.stale;
    if (watched.empty()) {
      watched = text;
      since = clock.now();
      log_(fmt::format("{}: locked by {}; waits up to {:.0f} s to see whether it lives", path_.parent_path().string(),
                       named(other), seconds(limit)));
    } else if (text != watched) {
      throw in_use(path_, other);
    } else if (clock.now() - since >= limit) {
      if (taken == File::Lock::kHeldByOther) {
        throw perhaps_in_use(
            path_, other,
            fmt::format("which has given no sign of life for {:.0f} s but has its lock at the file server",
                        seconds(limit)));
      }
      return take_over(fmt::format("which has given no sign of life for {:.0f} s", seconds(limit)));
    }
  }
}

void FolderLock::claim(bool kernel_decides, LockClock& clock) {
  write_text();
  if (kernel_decides) return;
  // Another host may have come to the same conclusion: the one that wrote last has the lock.
  clock.sleep(timing_.settle);
  if (const std::string text = read_text(); !is_ours(text)) throw in_use(path_, parse(text));
}

// At no moment is the file empty, which would mean that it is free: what is longer is cut behind.
void FolderLock::write_text() {
  const std::string text = fmt::format("{} {} {} {}\n", self_.host, self_.process,
                                       self_.boot.empty() ? kUnknownBoot : std::string_view(self_.boot),
                                       beats_ ? fmt::format("{:010}", beats_done_) : std::string(kNoBeat));
  file_->write(bytes_of(text), 0);
  if (file_->size_bytes() != text.size()) file_->truncate(text.size());
  if (beats_) file_->sync();  // a network file system shows it to others when it is synced
}

std::string FolderLock::read_text() const { return read_file(files_, path_, kMaxLockBytes); }

bool FolderLock::is_ours(std::string_view text) const {
  const std::optional<LockText> found = parse(text);
  return found && found->holder.host == self_.host && found->holder.process == self_.process &&
         found->holder.boot == self_.boot;
}

void FolderLock::require_held() {
  std::string text;
  try {
    text = read_text();
  } catch (const IoError& error) {
    if (error.error_number != ENOENT && error.error_number != ENOTDIR) throw;
    throw ConfigError(
        fmt::format("{}: the lock of this run is gone: somebody has removed or moved it or its folder; "
                    "what is written here now might meet another run's",
                    path_.string()));
  }
  if (is_ours(text)) return;
  throw ConfigError(fmt::format("{}: this run has lost its lock to {}; it must not write here any more",
                                path_.parent_path().string(), named(parse(text))));
}

bool FolderLock::beat() {
  try {
    require_held();
  } catch (const ConfigError& error) {
    log_(error.what());
    return false;
  }
  ++beats_done_;
  write_text();
  return true;
}

void FolderLock::beat_until_stopped() {
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, timing_.beat, [this] { return stopping_; })) {
    lock.unlock();
    try {
      if (!beat()) return;
    } catch (const std::exception&) {  // the file server may be back at the next one
    }
    lock.lock();
  }
}

}  // namespace strake::checkpoint
