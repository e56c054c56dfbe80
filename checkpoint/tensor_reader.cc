#include "checkpoint/tensor_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"

namespace strake::checkpoint {

void TensorReader::read(const TensorRecord& tensor, std::int64_t begin_elems, std::span<std::byte> out) {
  const std::uint64_t elem_bytes = size_bytes(tensor.dtype);
  STRAKE_CHECK(out.size() % elem_bytes == 0, "whole elements are read");
  std::int64_t at = begin_elems;
  for (const ShardRecord& shard : tensor.shards) {
    const std::int64_t shard_end = shard.begin_elems + shard.elems;
    if (out.empty() || at >= shard_end) continue;
    const FileRecord& file = found_.manifest.files[shard.file];
    std::uint64_t offset = shard.offset_bytes + static_cast<std::uint64_t>(at - shard.begin_elems) * elem_bytes;
    std::uint64_t left = std::min<std::uint64_t>(out.size(), static_cast<std::uint64_t>(shard_end - at) * elem_bytes);
    at += static_cast<std::int64_t>(left / elem_bytes);
    while (left > 0) {
      const auto index = static_cast<std::size_t>(offset / file.chunk_bytes);
      const std::span<const std::byte> bytes = chunk(shard.file, index).subspan(offset - index * file.chunk_bytes);
      const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left, bytes.size()));
      std::memcpy(out.data(), bytes.data(), n);
      out = out.subspan(n);
      offset += n;
      left -= n;
    }
  }
  STRAKE_CHECK(out.empty(), "read beyond tensor '" + tensor.name + "'");
}

std::span<const std::byte> TensorReader::chunk(std::size_t file, std::size_t chunk) {
  const auto found = std::find_if(kept_.begin(), kept_.end(),
                                  [&](const Kept& kept) { return kept.file == file && kept.chunk == chunk; });
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
    return found->bytes;
  }
  std::unique_ptr<ChunkReader> reader;
  if (kept_.size() == kChunks) {
    if (kept_.back().file == file) reader = std::move(kept_.back().reader);
    kept_.pop_back();
  }
  if (reader == nullptr) reader = std::make_unique<ChunkReader>(files_, found_.path, found_.manifest.files[file]);
  const std::span<const std::byte> bytes = reader->read(chunk);
  kept_.push_front({file, chunk, std::move(reader), bytes});
  return bytes;
}

}  // namespace strake::checkpoint
