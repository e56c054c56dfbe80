// TokenFile: a file of token ids on disk, read in place. Formats: format.md.
//
// The file is never loaded: reads are pread(2) through a small fixed buffer.
// Threads: read() and verify() from one thread at a time. Errors: DataError with file, what was expected, what was
// found, and the remedy; also when the file changes under the reader. ConfigError where a key must say what the file
// does not. IoError if the system cannot read.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/token_file_format.h"
#include "data/token_source.h"

namespace strake::data {

class TokenFile final : public TokenSource {
 public:
  // Opens the file and, if there is one, its sidecar `<path>.json`. `raw_type`: what its ids are if neither header nor
  // sidecar says it; nullopt: then it is refused (ConfigError).
  explicit TokenFile(std::filesystem::path path, std::optional<TokenType> raw_type = std::nullopt);
  ~TokenFile() override;
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  std::int64_t tokens() const override { return info_.tokens; }
  void read(std::int64_t begin, std::span<std::int32_t> out) override;
  std::string describe() const override { return path_.string(); }

  const TokenFileInfo& info() const { return info_; }
  // Equal texts: the same tokens, as far as can be known without reading all of them: type, number, the sidecar's
  // checksum if there is one, and a checksum of parts of the file spread over it. The path is not part of it.
  std::string fingerprint() const;
  // DataError naming the first id not below `vocab` in parts spread over the file: its first and last tokens, and some
  // between. The cost does not grow with the file.
  void require_sampled_ids_below(std::int64_t vocab);
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
  // The first kSampleBytes, the last, and some between, at multiples of 8; all of a short file.
  std::vector<std::byte> read_sample() const;
  // Fills `out` from byte `offset_bytes` of the file.
  void read_bytes(std::uint64_t offset_bytes, std::span<std::byte> out) const;
  void require_unchanged(std::int64_t token) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  Version opened_;
  TokenFileInfo info_;
  std::uint32_t sample_crc32c_ = 0;
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace strake::data
