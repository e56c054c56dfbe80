// TokenFile: a file of token ids on disk, read in place. Formats: format.md.
//
// The file is never loaded: reads are pread(2) through a small fixed buffer.
// Threads: read() and verify() from one thread at a time. Errors: DataError with file, what was expected, what was
// found, and the remedy; also when the file changes under the reader. IoError if the system cannot read.
#pragma once

#include <filesystem>
#include <memory>

#include "data/token_file_format.h"
#include "data/token_source.h"

namespace strake::data {

class TokenFile final : public TokenSource {
 public:
  // Opens the file and, if there is one, its sidecar `<path>.json`.
  explicit TokenFile(std::filesystem::path path);
  ~TokenFile() override;
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  std::int64_t tokens() const override { return info_.tokens; }
  void read(std::int64_t begin, std::span<std::int32_t> out) override;
  std::string describe() const override { return path_.string(); }

  const TokenFileInfo& info() const { return info_; }
  // Reads all of it; DataError if the tokens are not those of the sidecar's checksum. No checksum: does nothing.
  void verify();

 private:
  struct Version {  // of the file's contents, as the system tells it
    std::int64_t size_bytes = 0;
    std::int64_t modified_ns = 0;
    bool operator==(const Version&) const = default;
  };
  static constexpr std::size_t kBufferBytes = 64 * 1024;

  Version version() const;
  // Fills `out` from byte `offset_bytes` of the file.
  void read_bytes(std::uint64_t offset_bytes, std::span<std::byte> out) const;
  void require_unchanged(std::int64_t token) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  Version opened_;
  TokenFileInfo info_;
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace strake::data
