// TokenFileWriter: writes a token file with its sidecar, token by token; nothing appears under its name before
// it is complete and on disk.
//
// Threads: one. Errors: IoError (disk full, no permission); DataError when there are more tokens than a header can
// count, and there is one. A writer that is destroyed before publish() leaves nothing behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "data/token_file_format.h"
#include "runtime/io/files.h"

namespace strake::data {

class TokenFileWriter {
 public:
  // `info` says layout, type, vocabulary, tokenizer and source; count and checksum are the writer's. The folder of
  // `path` must exist. `files` outlives the writer.
  TokenFileWriter(Files& files, std::filesystem::path path, TokenFileInfo info);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  // REQUIRES: 0 <= id < info.vocab.
  void append(std::span<const std::int32_t> ids);
  // Everything is on disk, under temporary names. REQUIRES: at least one token.
  void finish();
  // Gives the finished files their names, durably. Whatever happens, a sidecar never stands beside another file's
  // tokens. REQUIRES: finished.
  void publish();

  const TokenFileInfo& info() const { return info_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  void flush();

  Files& files_;
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  std::filesystem::path sidecar_;
  std::filesystem::path temporary_sidecar_;
  TokenFileInfo info_;
  std::unique_ptr<File> file_;
  std::vector<std::byte> buffer_;
  std::uint64_t written_bytes_;
  bool finished_ = false;
  bool published_ = false;
};

}  // namespace strake::data
