#include "runtime/io/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"

namespace strake {
namespace {

namespace fs = std::filesystem;

// Less the umask: who may read is the user's decision, as with every other program.
constexpr mode_t kFileMode = 0666;
constexpr mode_t kDirectoryMode = 0777;

std::string_view remedy(int error_number) {
  switch (error_number) {
    case ENOSPC:
      return "; free space on this file system or write to another";
    case EDQUOT:
      return "; your quota is used up: free space or ask for more";
    case EACCES:
    case EPERM:
      return "; grant this user access or choose another folder";
    case EROFS:
      return "; the file system is mounted read-only: choose another folder";
    case ENOENT:
      return "; check the path";
    case ENOTDIR:
      return "; a part of the path is not a folder";
    case EISDIR:
      return "; a folder of this name is in the way";
    case EEXIST:
      return "; something of this name is in the way";
    case ELOOP:
      return "; symbolic links are not followed here";
    case EMFILE:
    case ENFILE:
      return "; raise the limit of open files (ulimit -n)";
    case EIO:
      return "; the device or its connection fails: check the system log";
    default:
      return "";
  }
}

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

template <typename Call>
auto retry_on_signal(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

class PosixFile final : public File {
 public:
  PosixFile(fs::path path, int fd) : File(std::move(path)), fd_(fd) {}

  std::uint64_t size_bytes() const override {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) throw io_error("find the size", path(), errno);
    return static_cast<std::uint64_t>(status.st_size);
  }

  void truncate(std::uint64_t size_bytes) override {
    if (retry_on_signal([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(size_bytes)); }) != 0) {
      throw io_error("set the length", path(), errno);
    }
  }

  void allocate(std::uint64_t size_bytes) override {
    if (size_bytes == 0) return;
    const auto length = static_cast<off_t>(size_bytes);
    if (retry_on_signal([&] { return ::fallocate(fd_.get(), 0, 0, length); }) == 0) return;
    if (errno != EOPNOTSUPP && errno != ENOSYS) {
      throw io_error(fmt::format("reserve {} bytes", size_bytes), path(), errno);
    }
    if (this->size_bytes() < size_bytes) truncate(size_bytes);
  }

  bool bypass_cache(bool bypass) override {
    const int flags = ::fcntl(fd_.get(), F_GETFL);
    return flags >= 0 && ::fcntl(fd_.get(), F_SETFL, bypass ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
  }

  void sync() override {
    if (::fsync(fd_.get()) != 0) throw io_error("sync", path(), errno);
  }

  void close() override {
    // After EINTR the descriptor is closed on Linux: closing again could close somebody else's.
    if (::close(fd_.release()) != 0 && errno != EINTR) throw io_error("close", path(), errno);
  }

  Lock try_lock() override {
    if (retry_on_signal([&] { return ::flock(fd_.get(), LOCK_EX | LOCK_NB); }) == 0) return Lock::kTaken;
    if (errno == EWOULDBLOCK) return Lock::kHeldByOther;
    if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK) return Lock::kUnsupported;
    throw io_error("lock", path(), errno);
  }
  LockReach lock_reach() const override { return lock_reach_of(fd_.get()); }

 protected:
  std::ptrdiff_t write_some(std::span<const std::byte> bytes, std::uint64_t offset) override {
    const ssize_t moved = offset == kEnd ? ::write(fd_.get(), bytes.data(), bytes.size())
                                         : ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    return moved < 0 ? -errno : moved;
  }

  std::ptrdiff_t read_some(std::span<std::byte> bytes, std::uint64_t offset) const override {
    const ssize_t moved = ::pread(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    return moved < 0 ? -errno : moved;
  }

 private:
  Descriptor fd_;
};

int open_flags(OpenMode mode) {
  switch (mode) {
    case OpenMode::kRead:
      return O_RDONLY;
    case OpenMode::kUpdate:
      return O_RDWR | O_NOFOLLOW;
    case OpenMode::kOpen:
      return O_RDWR | O_CREAT | O_NOFOLLOW;
    case OpenMode::kCreateNew:
      return O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
    case OpenMode::kReplace:
      return O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW;
    case OpenMode::kAppend:
      return O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW;
  }
  return O_RDONLY;
}

// nullopt: there is nothing of that name.
std::optional<struct stat> status_of(const fs::path& path, bool follow_links) {
  struct stat status {};
  if ((follow_links ? ::stat(path.c_str(), &status) : ::lstat(path.c_str(), &status)) == 0) return status;
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  throw io_error("look at", path, errno);
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

}  // namespace

IoError io_error(std::string_view doing, const fs::path& path, int error_number) {
  return IoError(
      fmt::format("{}: cannot {}: {}{}", path.string(), doing, std::strerror(error_number), remedy(error_number)),
      path.string(), error_number);
}

void File::write_all(std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const std::ptrdiff_t moved = write_some(bytes, offset);
    if (moved == -EINTR) continue;
    // No progress without an error would loop for ever.
    if (moved <= 0) throw io_error("write", path_, moved == 0 ? EIO : static_cast<int>(-moved));
    bytes = bytes.subspan(static_cast<std::size_t>(moved));
    if (offset != kEnd) offset += static_cast<std::uint64_t>(moved);
  }
}

void File::write(std::span<const std::byte> bytes, std::uint64_t offset) {
  STRAKE_CHECK(offset < static_cast<std::uint64_t>(INT64_MAX) - bytes.size(), "file offset out of range");
  write_all(bytes, offset);
}

void File::append(std::string_view text) { write_all(bytes_of(text), kEnd); }

std::size_t File::read(std::span<std::byte> bytes, std::uint64_t offset) const {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const std::ptrdiff_t moved = read_some(bytes.subspan(done), offset + done);
    if (moved == -EINTR) continue;
    if (moved < 0) throw io_error("read", path_, static_cast<int>(-moved));
    if (moved == 0) break;
    done += static_cast<std::size_t>(moved);
  }
  return done;
}

std::unique_ptr<File> PosixFiles::open(const fs::path& path, OpenMode mode) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode)) {  // would wait for its other end
    throw IoError(fmt::format("{}: cannot open: it is a pipe; name a regular file", path.string()), path.string(),
                  EPERM);  // as a path that can never be used
  }
  const int fd = retry_on_signal([&] { return ::open(path.c_str(), open_flags(mode) | O_CLOEXEC, kFileMode); });
  if (fd < 0) throw io_error(mode == OpenMode::kRead ? "open" : "open for writing", path, errno);
  return std::make_unique<PosixFile>(path, fd);
}

bool PosixFiles::exists(const fs::path& path) { return status_of(path, false).has_value(); }

bool PosixFiles::is_directory(const fs::path& path) {
  const auto status = status_of(path, true);
  return status && S_ISDIR(status->st_mode);
}

std::optional<std::uint64_t> PosixFiles::file_size_bytes(const fs::path& path) {
  const auto status = status_of(path, true);
  if (!status || !S_ISREG(status->st_mode)) return std::nullopt;
  return static_cast<std::uint64_t>(status->st_size);
}

std::vector<std::string> PosixFiles::list(const fs::path& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(directory.c_str()), ::closedir);
  if (folder == nullptr) throw io_error("list", directory, errno);
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(folder.get());
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) throw io_error("list", directory, errno);
  std::sort(names.begin(), names.end());
  return names;
}

void PosixFiles::make_directory(const fs::path& path) {
  if (::mkdir(path.c_str(), kDirectoryMode) == 0) return;
  const int cause = errno;
  if (cause == EEXIST && is_directory(path)) return;
  throw io_error("make the folder", path, cause);
}

void PosixFiles::rename(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  const int cause = errno;
  // A network file system may report a renaming that it has done as failed, when its answer was lost and asked for
  // again: then the source is gone and the target is there.
  if (cause == ENOENT && !exists(from) && exists(to)) return;
  throw io_error(fmt::format("rename to {}", to.filename().string()), from, cause);
}

void PosixFiles::remove(const fs::path& path) {
  if (::remove(path.c_str()) != 0 && errno != ENOENT) throw io_error("remove", path, errno);
}

void PosixFiles::sync_directory(const fs::path& path) {
  const Descriptor fd(retry_on_signal([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (fd.get() < 0) throw io_error("open the folder", path, errno);
  // Some network file systems cannot sync a folder and need not: their names are durable at once.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) throw io_error("sync the folder", path, errno);
}

std::uint64_t PosixFiles::free_bytes(const fs::path& path) {
  struct statvfs status {};
  if (::statvfs(path.c_str(), &status) != 0) throw io_error("find the free space", path, errno);
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

void Files::remove_all(const fs::path& path) {
  if (is_directory(path)) {
    try {
      remove(path);  // done, if it is empty or a link to a folder: what a link names is not ours to empty
      return;
    } catch (const IoError& error) {
      if (error.error_number != ENOTEMPTY && error.error_number != EEXIST) throw;
    }
    for (const std::string& name : list(path)) remove_all(path / name);
  }
  remove(path);
}

void Files::make_directories(const fs::path& path) {
  if (path.empty() || is_directory(path)) return;
  make_directories(folder_of(path) == path ? fs::path() : folder_of(path));
  make_directory(path);
  sync_directory(folder_of(path));
}

void replace_file(Files& files, const fs::path& path, std::string_view content) {
  fs::path temporary = path;
  temporary += ".tmp";
  const std::unique_ptr<File> file = files.open(temporary, OpenMode::kReplace);
  file->write(bytes_of(content), 0);
  file->sync();
  file->close();
  files.rename(temporary, path);
}

void write_file_durably(Files& files, const fs::path& path, std::string_view content) {
  replace_file(files, path, content);
  files.sync_directory(folder_of(path));
}

std::string read_file(Files& files, const fs::path& path, std::uint64_t max_bytes) {
  const std::unique_ptr<File> file = files.open(path, OpenMode::kRead);
  const std::uint64_t size_bytes = file->size_bytes();
  if (size_bytes > max_bytes) {
    throw IoError(fmt::format("{}: {} bytes, at most {} are expected here", path.string(), size_bytes, max_bytes),
                  path.string(), EFBIG);
  }
  std::string content(static_cast<std::size_t>(size_bytes), '\0');
  content.resize(file->read(std::as_writable_bytes(std::span<char>(content.data(), content.size())), 0));
  return content;
}

}  // namespace strake
