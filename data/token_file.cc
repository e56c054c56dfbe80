#include "data/token_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/io/crc32c.h"
#include "runtime/io/files.h"

namespace strake::data {
namespace {

std::string quoted(const std::filesystem::path& path) { return json_quote(path.string()); }

constexpr std::string_view kTokenFile = "token file";

// A long list of token files may need more than the usual 1,024 descriptors: up to the hard limit they are a process's
// for the asking. False: there are no more.
bool raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return false;
  limit.rlim_cur = limit.rlim_max;
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

// -1: there is nothing of that name. Never blocks, whatever the name stands for.
int open_regular_file(std::string_view what, const std::filesystem::path& path) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (descriptor < 0 && (errno == EINTR || (errno == EMFILE && raise_descriptor_limit())));
  if (descriptor < 0 && errno == ENOENT) return -1;
  if (descriptor < 0 && (errno == EMFILE || errno == ENFILE)) throw io_error("open", path, errno);
  if (descriptor < 0) throw DataError(fmt::format("{} {}: cannot open: {}", what, quoted(path), std::strerror(errno)));
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    const bool folder = S_ISDIR(status.st_mode);
    throw DataError(fmt::format(
        "{} {}: expected a regular file, found a {}{}", what, quoted(path), folder ? "folder" : "pipe or device",
        folder && what == kTokenFile ? fmt::format(". Name the files in it, as in {}", quoted(path / "*.bin")) : ""));
  }
  return descriptor;
}

std::optional<std::string> read_sidecar_text(const std::filesystem::path& token_file) {
  std::filesystem::path path = token_file;
  path += ".json";
  const int descriptor = open_regular_file("sidecar", path);
  if (descriptor < 0) {
    // A link to a token file need not have another to its sidecar.
    std::error_code ignored;
    if (!std::filesystem::is_symlink(token_file, ignored)) return std::nullopt;
    const std::filesystem::path target = std::filesystem::canonical(token_file, ignored);
    return target.empty() ? std::nullopt : read_sidecar_text(target);  // empty: of a descriptor, its file removed
  }
  std::string text(kMaxSidecarBytes + 1, '\0');
  std::size_t size = 0;
  int error_number = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(descriptor, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error_number = errno;
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  ::close(descriptor);
  if (error_number != 0) throw io_error("read", path, error_number);
  if (size > kMaxSidecarBytes) {
    throw DataError(fmt::format("sidecar {}: expected at most {} bytes of JSON, found more. Not a sidecar: rename it",
                                quoted(path), kMaxSidecarBytes));
  }
  text.resize(size);
  return text;
}

// Parts of a file that stand for all of it.
constexpr std::uint64_t kSamples = 8, kSampleBytes = 16 * 1024;
static_assert(kSampleBytes >= kTokenHeadBytes);

// Place i of kSamples places from 0 to `last`.
std::uint64_t spread(std::uint64_t i, std::uint64_t last) { return last * i / (kSamples - 1); }

void widen_u16(std::span<const std::byte> bytes, std::span<std::int32_t> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::uint16_t id = 0;
    std::memcpy(&id, bytes.data() + i * sizeof id, sizeof id);
    ids[i] = id;
  }
}

}  // namespace

TokenFile::TokenFile(std::filesystem::path path, std::optional<TokenType> raw_type)
    : path_(std::move(path)), buffer_(new std::byte[kBufferBytes]) {
  descriptor_ = open_regular_file(kTokenFile, path_);
  if (descriptor_ < 0) {
    throw DataError(
        fmt::format("token file {}: there is no such file. Check the path, or make it with `strake data "
                    "prepare`",
                    quoted(path_)));
  }
  try {
    opened_ = version();
    const std::vector<std::byte> sample = read_sample();
    const std::optional<std::string> sidecar = read_sidecar_text(path_);
    info_ = parse_token_file(path_.string(), sample, static_cast<std::uint64_t>(opened_.size_bytes), sidecar, raw_type);
    sample_crc32c_ = crc32c(sample);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

TokenFile::~TokenFile() { ::close(descriptor_); }

TokenFile::Version TokenFile::version() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) throw io_error("find the size", path_, errno);
  return {status.st_size, status.st_mtim.tv_sec * std::int64_t{1'000'000'000} + status.st_mtim.tv_nsec};
}

void TokenFile::require_unchanged(std::int64_t token) const {
  if (version() == opened_) return;
  throw DataError(fmt::format("token file {}: was changed while in use, noticed at token {}. Restore it and resume",
                              quoted(path_), token));
}

void TokenFile::read_bytes(std::uint64_t offset_bytes, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got = ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset_bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw io_error(fmt::format("read at byte {}", offset_bytes), path_, errno);
    if (got == 0) {
      throw DataError(
          fmt::format("token file {}: expected {} more bytes at byte {}, found its end: it was truncated "
                      "while in use. Restore it and resume",
                      quoted(path_), out.size(), offset_bytes));
    }
    out = out.subspan(static_cast<std::size_t>(got));
    offset_bytes += static_cast<std::uint64_t>(got);
  }
}

std::vector<std::byte> TokenFile::read_sample() const {
  const auto size_bytes = static_cast<std::uint64_t>(opened_.size_bytes);
  if (size_bytes <= kSamples * kSampleBytes) {
    std::vector<std::byte> all(static_cast<std::size_t>(size_bytes));
    read_bytes(0, all);
    return all;
  }
  const std::uint64_t last = (size_bytes - kSampleBytes) / 8 * 8;  // up to seven bytes more, so that none is left out
  std::vector<std::byte> sample(kSamples * kSampleBytes + size_bytes % 8);
  for (std::uint64_t i = 0; i < kSamples; ++i) {
    const std::span<std::byte> rest = std::span(sample).subspan(i * kSampleBytes);
    read_bytes(spread(i, last) / 8 * 8, i + 1 < kSamples ? rest.first(kSampleBytes) : rest);
  }
  return sample;
}

std::string TokenFile::fingerprint() const {
  return fmt::format("{} tokens, {}, checksum {}, of parts {:08x}", info_.tokens, name_of(info_.type),
                     info_.crc32c ? fmt::format("{:08x}", *info_.crc32c) : "not known", sample_crc32c_);
}

void TokenFile::require_sampled_ids_below(std::int64_t vocab) {
  constexpr std::int64_t kPart = kSampleBytes / 2;
  const std::int64_t last = std::max<std::int64_t>(info_.tokens - kPart, 0);
  for (std::uint64_t i = 0; i < kSamples; ++i) {
    const auto begin = static_cast<std::int64_t>(spread(i, static_cast<std::uint64_t>(last)));
    require_ids_below(vocab, *this, begin, std::min(begin + kPart, info_.tokens));
  }
}

void TokenFile::read(std::int64_t begin, std::span<std::int32_t> out) {
  STRAKE_CHECK(begin >= 0 && begin <= info_.tokens && std::cmp_less_equal(out.size(), info_.tokens - begin),
               "read beyond the end of " + describe());
  const std::size_t width = size_bytes(info_.type);
  while (!out.empty()) {
    const std::size_t count_tokens = std::min(out.size(), kBufferBytes / width);
    const std::span piece(buffer_.get(), count_tokens * width);
    read_bytes(info_.data_offset_bytes() + static_cast<std::uint64_t>(begin) * width, piece);
    const std::span ids = out.first(count_tokens);
    if (info_.type == TokenType::kU16) {
      widen_u16(piece, ids);
    } else {
      std::memcpy(ids.data(), piece.data(), piece.size());
    }
    const auto negative = std::find_if(ids.begin(), ids.end(), [](std::int32_t id) { return id < 0; });
    if (negative != ids.end()) {
      throw DataError(fmt::format("token file {}: expected ids below 2^31, found {} at token {}. Is it really {}?",
                                  quoted(path_), static_cast<std::uint32_t>(*negative),
                                  begin + (negative - ids.begin()), name_of(info_.type)));
    }
    out = out.subspan(count_tokens);
    begin += static_cast<std::int64_t>(count_tokens);
  }
  require_unchanged(begin);
}

void TokenFile::verify() {
  if (!info_.crc32c) return;
  std::uint32_t crc = 0;
  auto offset_bytes = static_cast<std::uint64_t>(info_.data_offset_bytes());
  const auto end_bytes = static_cast<std::uint64_t>(opened_.size_bytes);
  while (offset_bytes < end_bytes) {
    const std::span piece(buffer_.get(),
                          static_cast<std::size_t>(std::min<std::uint64_t>(end_bytes - offset_bytes, kBufferBytes)));
    read_bytes(offset_bytes, piece);
    crc = crc32c(piece, crc);
    offset_bytes += piece.size();
  }
  require_unchanged(info_.tokens);
  if (crc != *info_.crc32c) {
    throw DataError(
        fmt::format("token file {}: expected the tokens with CRC-32C {:08x} (its sidecar), found {:08x}. The "
                    "file is damaged or not the sidecar's: prepare or copy both again",
                    quoted(path_), *info_.crc32c, crc));
  }
}

}  // namespace strake::data
