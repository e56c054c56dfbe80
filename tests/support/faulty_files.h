// FaultyFiles: files whose n-th changing call fails, kills the writer or lies, for every n in turn.
//
// A changing call is anything that can alter what is on disk: opening to write, writing, allocating, truncating,
// syncing, closing, making, renaming, removing, syncing a folder. Calls are numbered from 1 over all threads.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>

#include "runtime/io/forwarding_files.h"

namespace strake::test {

// Thrown where the process would have died. Not an Error on purpose: nothing may catch it and tidy up.
struct SimulatedCrash {};

class FaultyFiles final : public ForwardingFiles {
 public:
  explicit FaultyFiles(Files& inner) : ForwardingFiles(inner) {}

  // Call `number` fails once with `error_number`.
  void fail_at(std::int64_t number, int error_number) { fail_at_ = number, error_number_ = error_number; }
  // From call `number` on everything that needs space fails; removing and renaming still work.
  void fill_disk_at(std::int64_t number, int error_number) { full_at_ = number, error_number_ = error_number; }
  // The process dies on entering call `number`; every later call dies too, so that clean-up code cannot run.
  void crash_at(std::int64_t number) { crash_at_ = number; }
  // Sync `number` (of files and folders together, from 1) does nothing and claims success.
  void ignore_sync(std::int64_t number) { ignored_sync_ = number; }
  // Every write moves about half of what it is asked to.
  void shorten_writes() { short_writes_ = true; }
  // Every other write or read is interrupted by a signal before it moves anything.
  void interrupt() { interrupts_ = true; }
  void heal() { fail_at_ = full_at_ = crash_at_ = ignored_sync_ = 0, short_writes_ = interrupts_ = false; }

  std::int64_t changing_calls() const { return calls_; }
  std::int64_t syncs() const { return syncs_; }
  void restart_count() { calls_ = syncs_ = 0; }

  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    if (mode != OpenMode::kRead) change("open for writing", path, true);
    return std::make_unique<FaultyFile>(*this, ForwardingFiles::open(path, mode));
  }
  void make_directory(const std::filesystem::path& path) override {
    change("make the folder", path, true);
    ForwardingFiles::make_directory(path);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    change("rename", from, false);
    ForwardingFiles::rename(from, to);
  }
  void remove(const std::filesystem::path& path) override {
    change("remove", path, false);
    ForwardingFiles::remove(path);
  }
  void sync_directory(const std::filesystem::path& path) override {
    change("sync the folder", path, false);
    if (++syncs_ != ignored_sync_) ForwardingFiles::sync_directory(path);
  }

 private:
  class FaultyFile final : public ForwardingFile {
   public:
    FaultyFile(FaultyFiles& owner, std::unique_ptr<File> inner) : ForwardingFile(std::move(inner)), owner_(owner) {}

    void truncate(std::uint64_t size_bytes) override {
      owner_.change("set the length", path(), true);
      ForwardingFile::truncate(size_bytes);
    }
    void allocate(std::uint64_t size_bytes) override {
      owner_.change("reserve space", path(), true);
      ForwardingFile::allocate(size_bytes);
    }
    void sync() override {
      owner_.change("sync", path(), true);
      if (++owner_.syncs_ != owner_.ignored_sync_) ForwardingFile::sync();
    }
    void close() override {
      owner_.change("close", path(), true);
      ForwardingFile::close();
    }

   protected:
    std::ptrdiff_t write_some(std::span<const std::byte> bytes, std::uint64_t offset) override {
      if (const int error = owner_.next_change(true); error != 0) return -error;
      if (owner_.interrupts_ && ++owner_.transfers_ % 2 == 1) return -EINTR;
      return ForwardingFile::write_some(owner_.short_writes_ ? bytes.first((bytes.size() + 1) / 2) : bytes, offset);
    }
    std::ptrdiff_t read_some(std::span<std::byte> bytes, std::uint64_t offset) const override {
      if (owner_.interrupts_ && ++owner_.transfers_ % 2 == 1) return -EINTR;
      return ForwardingFile::read_some(owner_.short_writes_ ? bytes.first((bytes.size() + 1) / 2) : bytes, offset);
    }

   private:
    FaultyFiles& owner_;
  };

  // Counts a changing call; 0, or the errno it is to fail with.
  int next_change(bool needs_space) {
    const std::int64_t number = ++calls_;
    if (crash_at_ != 0 && number >= crash_at_) throw SimulatedCrash{};
    if (number == fail_at_) return error_number_;
    if (full_at_ != 0 && number >= full_at_ && needs_space) return error_number_;
    return 0;
  }
  void change(std::string_view doing, const std::filesystem::path& path, bool needs_space) {
    if (const int error = next_change(needs_space); error != 0) throw io_error(doing, path, error);
  }

  std::int64_t fail_at_ = 0;
  std::int64_t full_at_ = 0;
  std::int64_t crash_at_ = 0;
  std::int64_t ignored_sync_ = 0;
  int error_number_ = 0;
  bool short_writes_ = false;
  bool interrupts_ = false;
  std::atomic<std::int64_t> calls_{0};
  std::atomic<std::int64_t> syncs_{0};
  std::atomic<std::int64_t> transfers_{0};
};

}  // namespace strake::test
