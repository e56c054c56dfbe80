// CountingFiles: counts what is read of files, for tests of how often a byte is.
// Threads: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "runtime/io/forwarding_files.h"

namespace strake::test {

class CountingFiles final : public ForwardingFiles {
 public:
  // `counts`: by its name, is a file counted?
  CountingFiles(Files& inner, std::function<bool(const std::string& name)> counts)
      : ForwardingFiles(inner), counts_(std::move(counts)) {}

  std::int64_t opens() const { return opens_; }
  std::int64_t reads() const { return reads_; }  // calls that gave something
  std::uint64_t read_bytes() const { return read_bytes_; }

  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    auto file = ForwardingFiles::open(path, mode);
    if (mode != OpenMode::kRead || !counts_(path.filename().string())) return file;
    ++opens_;
    return std::make_unique<CountedFile>(*this, std::move(file));
  }

 private:
  class CountedFile final : public ForwardingFile {
   public:
    CountedFile(CountingFiles& owner, std::unique_ptr<File> inner) : ForwardingFile(std::move(inner)), owner_(owner) {}

   protected:
    std::ptrdiff_t read_some(std::span<std::byte> bytes, std::uint64_t offset) const override {
      const std::ptrdiff_t moved = ForwardingFile::read_some(bytes, offset);
      if (moved > 0) {
        ++owner_.reads_;
        owner_.read_bytes_ += static_cast<std::uint64_t>(moved);
      }
      return moved;
    }

   private:
    CountingFiles& owner_;
  };

  const std::function<bool(const std::string&)> counts_;
  std::atomic<std::int64_t> opens_{0}, reads_{0};
  std::atomic<std::uint64_t> read_bytes_{0};
};

}  // namespace strake::test
