// Files and File: the one door to durable files. Every writer goes through it, so that tests can wrap it
// and make the disk fill up, writes come back short, the process die between two calls, or the power fail.
//
// Nothing written is durable before File::sync; no new, renamed or removed name is durable before
// Files::sync_directory of its folder.
// Threads: a Files may be used by several threads; a File by one at a time, except read() and write() of ranges that do
// not overlap, which any may call. Errors: IoError with path, cause and remedy. A failed sync is final: the kernel may
// have dropped the data, so that a second sync would succeed without them. Give the file up and write another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/io/lock_reach.h"

namespace strake {

// The IoError for a failed call: "ckpt/step-1/rank-0.h5: cannot write: No space left on device; free space ...".
IoError io_error(std::string_view doing, const std::filesystem::path& path, int error_number);

enum class OpenMode : std::uint8_t {
  kRead,       // must exist
  kUpdate,     // read and write, must exist
  kOpen,       // read and write, created if missing, content kept
  kCreateNew,  // read and write, must not exist
  kReplace,    // read and write, created or emptied
  kAppend,     // created if missing; every write goes to the end
};

class File {
 public:
  explicit File(std::filesystem::path path) : path_(std::move(path)) {}
  virtual ~File() = default;  // closes; what close() would report is lost
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // Writes all of `bytes` at `offset`, continuing after short writes and signals.
  void write(std::span<const std::byte> bytes, std::uint64_t offset);
  // Writes all of `bytes` at the end: one system call unless the disk is nearly full. REQUIRES: OpenMode::kAppend.
  void append(std::string_view text);
  // Fills `bytes` from `offset` and returns how many there were: less than asked only at the end of the file.
  std::size_t read(std::span<std::byte> bytes, std::uint64_t offset) const;

  virtual std::uint64_t size_bytes() const = 0;
  // Cuts or (with zeros) extends. Later appends go to the new end.
  virtual void truncate(std::uint64_t size_bytes) = 0;
  // Takes disk space for [0, size_bytes) and makes the file at least that long, so that a full disk shows now and
  // not half-way. Where the file system cannot reserve, only the length is set.
  virtual void allocate(std::uint64_t size_bytes) = 0;
  // From now on write() and read() move bytes between memory and disk without the page cache (O_DIRECT), or, `bypass`
  // false, through it again. False: the file system has no such thing, and nothing has changed. REQUIRES while it does:
  // memory, offset and size of each write() and read() are multiples of kDirectBytes. What was written still has to be
  // synced.
  virtual bool bypass_cache([[maybe_unused]] bool bypass) { return false; }
  static constexpr std::size_t kDirectBytes = 4096;
  // The data survive power loss when this returns.
  virtual void sync() = 0;
  // Reports what closing reports (a network file system writes back here). The file is closed in any case.
  virtual void close() = 0;

  enum class Lock : std::uint8_t { kTaken, kHeldByOther, kUnsupported };
  // Takes the advisory lock of the whole file without waiting. The kernel releases it when the file is closed or
  // the process dies, however it dies.
  virtual Lock try_lock() = 0;
  // Who is kept out by it.
  virtual LockReach lock_reach() const { return LockReach::kOneHost; }

 protected:
  // One system call: bytes moved (0 <= n <= bytes.size()), or -errno. Offset kEnd: append.
  static constexpr std::uint64_t kEnd = UINT64_MAX;
  virtual std::ptrdiff_t write_some(std::span<const std::byte> bytes, std::uint64_t offset) = 0;
  virtual std::ptrdiff_t read_some(std::span<std::byte> bytes, std::uint64_t offset) const = 0;
  friend class ForwardingFile;  // a wrapper reaches the calls of the file it wraps

 private:
  void write_all(std::span<const std::byte> bytes, std::uint64_t offset);

  std::filesystem::path path_;
};

class Files {
 public:
  virtual ~Files() = default;

  // A pipe is refused: nothing waits for its other end. New files have mode 0666, new folders 0777, less the umask. A
  // file that is to be written is not reached through a symbolic link.
  virtual std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) = 0;
  virtual bool exists(const std::filesystem::path& path) = 0;
  virtual bool is_directory(const std::filesystem::path& path) = 0;
  // Of a regular file; nullopt if there is none.
  virtual std::optional<std::uint64_t> file_size_bytes(const std::filesystem::path& path) = 0;
  // Names in the folder, sorted, without "." and "..".
  virtual std::vector<std::string> list(const std::filesystem::path& directory) = 0;
  // The parent must exist; an existing folder is fine.
  virtual void make_directory(const std::filesystem::path& path) = 0;
  // Atomic. A file replaces a file; a folder only an empty folder.
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  // A file or an empty folder; missing is fine.
  virtual void remove(const std::filesystem::path& path) = 0;
  // The names in this folder, as they are now, survive power loss when this returns.
  virtual void sync_directory(const std::filesystem::path& path) = 0;
  // Free for this user in the file system that holds `path`.
  virtual std::uint64_t free_bytes(const std::filesystem::path& path) = 0;

  // Removes a file or a folder with all it holds; missing is fine. Does not follow links.
  void remove_all(const std::filesystem::path& path);
  // Makes the folder and its missing parents, each synced into its parent.
  void make_directories(const std::filesystem::path& path);
};

// The operating system's files.
class PosixFiles final : public Files {
 public:
  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override;
  bool exists(const std::filesystem::path& path) override;
  bool is_directory(const std::filesystem::path& path) override;
  std::optional<std::uint64_t> file_size_bytes(const std::filesystem::path& path) override;
  std::vector<std::string> list(const std::filesystem::path& directory) override;
  void make_directory(const std::filesystem::path& path) override;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  void remove(const std::filesystem::path& path) override;
  void sync_directory(const std::filesystem::path& path) override;
  std::uint64_t free_bytes(const std::filesystem::path& path) override;
};

// Replaces `path` by a file with this content: after a crash it holds the old content or the new, never a part.
// The new content is durable only after sync_directory of its folder.
void replace_file(Files& files, const std::filesystem::path& path, std::string_view content);
// As replace_file, durable on return.
void write_file_durably(Files& files, const std::filesystem::path& path, std::string_view content);
// The whole file. Throws IoError if there is none or it is longer than `max_bytes` (EFBIG).
std::string read_file(Files& files, const std::filesystem::path& path, std::uint64_t max_bytes);

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

}  // namespace strake
