// Bases for wrappers around Files (injected faults, counters): each forwards everything and a wrapper overrides
// what it adds. Wrappers nest.
#pragma once

#include <memory>
#include <utility>

#include "runtime/io/files.h"

namespace strake {

class ForwardingFile : public File {
 public:
  explicit ForwardingFile(std::unique_ptr<File> inner) : File(inner->path()), inner_(std::move(inner)) {}

  std::uint64_t size_bytes() const override { return inner_->size_bytes(); }
  void truncate(std::uint64_t size_bytes) override { inner_->truncate(size_bytes); }
  void allocate(std::uint64_t size_bytes) override { inner_->allocate(size_bytes); }
  bool bypass_cache(bool bypass) override { return inner_->bypass_cache(bypass); }
  void sync() override { inner_->sync(); }
  void close() override { inner_->close(); }
  Lock try_lock() override { return inner_->try_lock(); }
  LockReach lock_reach() const override { return inner_->lock_reach(); }

 protected:
  std::ptrdiff_t write_some(std::span<const std::byte> bytes, std::uint64_t offset) override {
    return inner_->write_some(bytes, offset);
  }
  std::ptrdiff_t read_some(std::span<std::byte> bytes, std::uint64_t offset) const override {
    return inner_->read_some(bytes, offset);
  }

 private:
  std::unique_ptr<File> inner_;
};

class ForwardingFiles : public Files {
 public:
  explicit ForwardingFiles(Files& inner) : inner_(inner) {}

  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    return inner_.open(path, mode);
  }
  bool exists(const std::filesystem::path& path) override { return inner_.exists(path); }
  bool is_directory(const std::filesystem::path& path) override { return inner_.is_directory(path); }
  std::optional<std::uint64_t> file_size_bytes(const std::filesystem::path& path) override {
    return inner_.file_size_bytes(path);
  }
  std::vector<std::string> list(const std::filesystem::path& directory) override { return inner_.list(directory); }
  void make_directory(const std::filesystem::path& path) override { inner_.make_directory(path); }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override { inner_.rename(from, to); }
  void remove(const std::filesystem::path& path) override { inner_.remove(path); }
  void sync_directory(const std::filesystem::path& path) override { inner_.sync_directory(path); }
  std::uint64_t free_bytes(const std::filesystem::path& path) override { return inner_.free_bytes(path); }

 private:
  Files& inner_;
};

}  // namespace strake
