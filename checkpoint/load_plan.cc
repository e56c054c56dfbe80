#include "checkpoint/load_plan.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "runtime/base/check.h"

namespace strake::checkpoint {
namespace {

// A range of a tensor that some rank reads.
struct ReadPiece {
  std::int64_t begin_elems, end_elems;
  std::size_t rank;
  std::size_t planned;  // index into what that rank would write
};

std::map<std::string_view, std::vector<ReadPiece>> pieces_by_tensor(
    std::span<const std::vector<HeldRange>> held_by_rank, std::span<const std::vector<PlannedRange>> planned_by_rank) {
  std::map<std::string_view, std::vector<ReadPiece>> pieces;
  for (std::size_t rank = 0; rank < planned_by_rank.size(); ++rank) {
    for (std::size_t i = 0; i < planned_by_rank[rank].size(); ++i) {
      const PlannedRange& range = planned_by_rank[rank][i];
      pieces[held_by_rank[rank][range.entry].name].push_back(
          {range.begin_elems, range.begin_elems + range.elems, rank, i});
    }
  }
  for (auto& [name, of_tensor] : pieces) {
    std::ranges::sort(of_tensor, {}, &ReadPiece::begin_elems);
  }
  return pieces;
}

// Of one file: who reads what.
struct Claims {
  static constexpr std::size_t kNobody = SIZE_MAX;

  std::vector<bool> chunks;      // that are read because of what lies in them
  std::size_t reader = kNobody;  // the lowest rank that reads here
  FileReads ours;
};

}  // namespace

std::vector<FileReads> plan_reads(const Manifest& manifest, std::span<const std::vector<HeldRange>> held_by_rank,
                                  std::span<const std::vector<PlannedRange>> planned_by_rank, std::size_t rank) {
  std::vector<Claims> claims(manifest.files.size());
  for (std::size_t file = 0; file < claims.size(); ++file) {
    claims[file].chunks.resize(manifest.files[file].chunk_crcs.size());
    claims[file].ours.file = file;
  }
  const auto pieces = pieces_by_tensor(held_by_rank, planned_by_rank);
  for (const TensorRecord& tensor : manifest.tensors) {
    const auto found = pieces.find(tensor.name);
    if (found == pieces.end()) continue;
    const std::uint64_t elem_bytes = size_bytes(tensor.dtype);
    // Both by begin_elems, and the shards adjoin: one pass over the two.
    auto shard = tensor.shards.begin();
    for (const ReadPiece& piece : found->second) {
      while (shard->begin_elems + shard->elems <= piece.begin_elems) ++shard;
      for (auto at = shard; at != tensor.shards.end() && at->begin_elems < piece.end_elems; ++at) {
        const std::int64_t first = std::max(piece.begin_elems, at->begin_elems);
        const std::int64_t last = std::min(piece.end_elems, at->begin_elems + at->elems);
        const ReadRange range{at->offset_bytes + static_cast<std::uint64_t>(first - at->begin_elems) * elem_bytes,
                              static_cast<std::uint64_t>(last - first) * elem_bytes, piece.planned,
                              static_cast<std::uint64_t>(first - piece.begin_elems) * elem_bytes};
        Claims& claim = claims[at->file];
        const std::uint64_t chunk_bytes = manifest.files[at->file].chunk_bytes;
        const std::size_t last_chunk = (range.offset_bytes + range.length_bytes - 1) / chunk_bytes;
        for (std::size_t chunk = range.offset_bytes / chunk_bytes; chunk <= last_chunk; ++chunk) {
          claim.chunks[chunk] = true;
          if (piece.rank == rank) claim.ours.chunks.push_back(chunk);
        }
        claim.reader = std::min(claim.reader, piece.rank);
        if (piece.rank == rank) claim.ours.ranges.push_back(range);
      }
    }
  }
  std::vector<FileReads> reads;
  for (Claims& claim : claims) {
    FileReads& ours = claim.ours;
    const std::size_t reader =
        claim.reader != Claims::kNobody ? claim.reader : ours.file % std::max<std::size_t>(planned_by_rank.size(), 1);
    if (reader == rank) {
      for (std::size_t chunk = 0; chunk < claim.chunks.size(); ++chunk) {
        if (!claim.chunks[chunk]) ours.chunks.push_back(chunk);
      }
    }
    if (ours.chunks.empty() && reader != rank) continue;
    std::ranges::sort(ours.chunks);
    ours.chunks.erase(std::unique(ours.chunks.begin(), ours.chunks.end()), ours.chunks.end());
    std::ranges::sort(ours.ranges, {}, &ReadRange::offset_bytes);
    reads.push_back(std::move(ours));
  }
  return reads;
}

}  // namespace strake::checkpoint
