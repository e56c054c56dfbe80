#include "checkpoint/shard_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <string>

#include "runtime/base/check.h"
#include "runtime/device/host_memory.h"
#include "runtime/io/crc32c.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;

// A file that is gone, is something else or cannot be read from the medium is a damaged checkpoint; no permission
// or too many open files are not the checkpoint's fault.
bool means_damage(int error_number) {
  return error_number == ENOENT || error_number == ENOTDIR || error_number == EISDIR || error_number == ELOOP ||
         error_number == EIO || error_number == EFBIG;
}

template <typename Call>
auto damage_as_corrupt(Call call) {
  try {
    return call();
  } catch (const IoError& error) {
    if (!means_damage(error.error_number)) throw;
    throw CorruptError(error.what(), error.path, 0);
  }
}

Tensor bytes_view(const Tensor& tensor, std::uint64_t begin_bytes, std::uint64_t length_bytes) {
  return Tensor(tensor.arena(), tensor.offset_bytes() + begin_bytes, DType::kU8,
                {static_cast<std::int64_t>(length_bytes)});
}

// Waits for the copies in flight when an error ends their scope, so that nobody reuses memory they still touch.
class DrainOnError {
 public:
  explicit DrainOnError(Stream& stream) : stream_(stream), exceptions_(std::uncaught_exceptions()) {}
  ~DrainOnError() {
    if (std::uncaught_exceptions() == exceptions_) return;
    try {
      stream_.synchronize();
    } catch (const std::exception&) {  // the first error is already on its way
    }
  }
  DrainOnError(const DrainOnError&) = delete;
  DrainOnError& operator=(const DrainOnError&) = delete;

 private:
  Stream& stream_;
  int exceptions_;
};

// Bytes of a file that belong at some place of a tensor.
struct WantedRange {
  std::uint64_t offset_bytes;  // in the file
  std::uint64_t length_bytes;
  const Tensor* tensor;
  std::uint64_t tensor_bytes;  // where in the tensor
};

std::vector<std::vector<WantedRange>> wanted_by_file(const Manifest& manifest, const TensorTable& table) {
  std::vector<std::vector<WantedRange>> wanted(manifest.files.size());
  for (const TensorTable::Entry& entry : table.entries) {
    const TensorRecord* record = manifest.find(entry.name);
    STRAKE_CHECK(record != nullptr, "tensor '" + entry.name + "' is not in the checkpoint");
    const std::int64_t end_elems = entry.begin_elems + entry.view.elems();
    const std::uint64_t elem_bytes = size_bytes(record->dtype);
    for (const ShardRecord& shard : record->shards) {
      const std::int64_t first = std::max(entry.begin_elems, shard.begin_elems);
      const std::int64_t last = std::min(end_elems, shard.begin_elems + shard.elems);
      if (first >= last) continue;
      wanted[shard.file].push_back(
          {shard.offset_bytes + static_cast<std::uint64_t>(first - shard.begin_elems) * elem_bytes,
           static_cast<std::uint64_t>(last - first) * elem_bytes, &entry.view,
           static_cast<std::uint64_t>(first - entry.begin_elems) * elem_bytes});
    }
  }
  for (auto& ranges : wanted) {
    std::sort(ranges.begin(), ranges.end(),
              [](const WantedRange& a, const WantedRange& b) { return a.offset_bytes < b.offset_bytes; });
  }
  return wanted;
}

}  // namespace

ChunkReader::ChunkReader(Files& files, const fs::path& folder, const FileRecord& record)
    : record_(record), file_(damage_as_corrupt([&] { return files.open(folder / record.name, OpenMode::kRead); })) {}

std::span<const std::byte> ChunkReader::read(std::size_t chunk) {
  buffer_.resize(static_cast<std::size_t>(std::min(record_.chunk_bytes, record_.size_bytes)));
  const std::uint64_t begin = chunk * record_.chunk_bytes;
  const std::span<std::byte> bytes =
      std::span(buffer_).first(static_cast<std::size_t>(std::min(record_.chunk_bytes, record_.size_bytes - begin)));
  read_into(bytes, chunk);
  return bytes;
}

void ChunkReader::read_into(std::span<std::byte> bytes, std::size_t first) const {
  std::uint64_t begin = first * record_.chunk_bytes;
  const std::size_t got = damage_as_corrupt([&] { return file_->read(bytes, begin); });
  if (got != bytes.size()) {
    throw CorruptError(
        fmt::format("{}: ends at byte {} of {}", file_->path().string(), begin + got, record_.size_bytes),
        file_->path().string(), begin + got);
  }
  for (std::size_t chunk = first; !bytes.empty(); ++chunk) {
    const std::span<const std::byte> content = bytes.first(std::min<std::size_t>(bytes.size(), record_.chunk_bytes));
    if (crc32c(content) != record_.chunk_crcs[chunk]) {
      throw CorruptError(fmt::format("{}: checksum of chunk {} (bytes {} to {}) does not match", file_->path().string(),
                                     chunk, begin, begin + content.size()),
                         file_->path().string(), begin);
    }
    begin += content.size();
    bytes = bytes.subspan(content.size());
  }
}

void check_size(Files& files, const fs::path& folder, const FileRecord& record) {
  const auto size_bytes = files.file_size_bytes(folder / record.name);
  if (size_bytes == record.size_bytes) return;
  const std::string path = (folder / record.name).string();
  throw CorruptError(size_bytes ? fmt::format("{}: {} bytes, {} were written", path, *size_bytes, record.size_bytes)
                                : fmt::format("{}: missing", path),
                     path, 0);
}

void check_sizes(Files& files, const fs::path& folder, const Manifest& manifest) {
  for (const FileRecord& record : manifest.files) check_size(files, folder, record);
}

ReadTotals load_tensors(Files& files, const fs::path& folder, const Manifest& manifest, const TensorTable& table,
                        Stream& stream, const Tensor& staging) {
  const std::span<std::byte> host = host_bytes(staging);
  STRAKE_CHECK(!host.empty(), "loading needs staging memory");
  const DrainOnError drain(stream);
  std::size_t filled = 0;
  ReadTotals totals;
  const auto wanted = wanted_by_file(manifest, table);
  for (std::size_t f = 0; f < manifest.files.size(); ++f) {
    if (wanted[f].empty()) continue;
    const FileRecord& record = manifest.files[f];
    ChunkReader reader(files, folder, record);
    ++totals.files;
    std::size_t chunk_read = SIZE_MAX;
    std::span<const std::byte> chunk;
    for (WantedRange range : wanted[f]) {
      while (range.length_bytes > 0) {
        const auto index = static_cast<std::size_t>(range.offset_bytes / record.chunk_bytes);
        if (index != chunk_read) {
          chunk = reader.read(chunk_read = index);
          totals.bytes += chunk.size();
        }
        if (filled == host.size()) {
          stream.synchronize();  // the copies have left the staging memory
          filled = 0;
        }
        const std::uint64_t in_chunk = range.offset_bytes - index * record.chunk_bytes;
        const std::uint64_t n =
            std::min({range.length_bytes, chunk.size() - in_chunk, std::uint64_t{host.size() - filled}});
        std::memcpy(host.data() + filled, chunk.data() + in_chunk, n);
        stream.copy({"load checkpoint", Phase::kCheckpoint}, bytes_view(*range.tensor, range.tensor_bytes, n),
                    bytes_view(staging, filled, n));
        filled += n;
        range.offset_bytes += n;
        range.length_bytes -= n;
        range.tensor_bytes += n;
      }
    }
  }
  stream.synchronize();
  return totals;
}

}  // namespace strake::checkpoint
