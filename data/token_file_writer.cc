#include "data/token_file_writer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/io/crc32c.h"

namespace strake::data {
namespace {

constexpr std::size_t kWriterBufferBytes = 128 * 1024;

std::filesystem::path with_suffix(std::filesystem::path path, std::string_view suffix) {
  path += suffix;
  return path;
}

}  // namespace

TokenFileWriter::TokenFileWriter(Files& files, std::filesystem::path path, TokenFileInfo info)
    : files_(files),
      path_(std::move(path)),
      temporary_(with_suffix(path_, fmt::format(".{}.tmp", ::getpid()))),
      sidecar_(with_suffix(path_, ".json")),
      temporary_sidecar_(with_suffix(sidecar_, fmt::format(".{}.tmp", ::getpid()))),
      info_(std::move(info)),
      written_bytes_(info_.data_offset_bytes()) {
  info_.tokens = 0;
  info_.crc32c = 0;
  buffer_.reserve(kWriterBufferBytes);
  file_ = files_.open(temporary_, OpenMode::kReplace);
}

TokenFileWriter::~TokenFileWriter() {
  if (published_) return;
  try {
    file_.reset();
    files_.remove(temporary_);
    files_.remove(temporary_sidecar_);
  } catch (...) {
    // Nothing more can be done about a temporary file that cannot be removed; the first error is on its way up.
  }
}

void TokenFileWriter::append(std::span<const std::int32_t> ids) {
  STRAKE_CHECK(!finished_, "append to a finished token file");
  if (info_.layout == TokenLayout::kHeader && std::cmp_greater(ids.size(), kMaxHeaderTokens - info_.tokens)) {
    throw DataError(fmt::format("token file {}: a header cannot count more than {} tokens. Write it without one (raw)",
                                json_quote(path_.string()), kMaxHeaderTokens));
  }
  const std::size_t width = size_bytes(info_.type);
  for (const std::int32_t id : ids) {
    STRAKE_CHECK(id >= 0 && id < info_.vocab, "token id outside of the vocabulary");
    if (buffer_.size() + width > kWriterBufferBytes) flush();
    const std::size_t end = buffer_.size();
    buffer_.resize(end + width);
    std::memcpy(buffer_.data() + end, &id, width);  // little-endian: the low bytes come first
  }
  info_.tokens += static_cast<std::int64_t>(ids.size());
}

void TokenFileWriter::flush() {
  info_.crc32c = crc32c(buffer_, *info_.crc32c);
  file_->write(buffer_, written_bytes_);
  written_bytes_ += buffer_.size();
  buffer_.clear();
}

void TokenFileWriter::finish() {
  STRAKE_CHECK(!finished_ && info_.tokens >= 1, "a token file has at least one token and is finished once");
  flush();
  if (info_.layout == TokenLayout::kHeader) file_->write(token_header(info_), 0);
  file_->sync();
  file_->close();
  const std::unique_ptr<File> sidecar = files_.open(temporary_sidecar_, OpenMode::kReplace);
  sidecar->write(bytes_of(sidecar_json(info_)), 0);
  sidecar->sync();
  sidecar->close();
  finished_ = true;
}

void TokenFileWriter::publish() {
  STRAKE_CHECK(finished_ && !published_, "publish a finished token file, once");
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  files_.remove(sidecar_);  // of the file that is replaced
  files_.sync_directory(folder);
  files_.rename(temporary_, path_);
  files_.sync_directory(folder);
  files_.rename(temporary_sidecar_, sidecar_);
  files_.sync_directory(folder);
  published_ = true;
}

}  // namespace strake::data
