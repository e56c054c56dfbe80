#include "checkpoint/shard_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/signals_blocked.h"
#include "runtime/io/crc32c.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;

// Copied and checksummed at once, while a core's cache holds it.
constexpr std::size_t kPieceBytes = 128 << 10;

// Memory that direct I/O takes.
class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t size_bytes)
      : bytes_(static_cast<std::byte*>(::operator new(size_bytes, kAlignment))), size_bytes_(size_bytes) {}
  ~AlignedBuffer() { ::operator delete(bytes_, kAlignment); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  std::span<std::byte> bytes() { return {bytes_, size_bytes_}; }

 private:
  static constexpr std::align_val_t kAlignment{File::kDirectBytes};
  std::byte* bytes_;
  std::size_t size_bytes_;
};

// The file's bytes, which lie in the image and in the payloads.
class FileBytes {
 public:
  FileBytes(const H5Image& image, std::span<const std::span<const std::byte>> payloads) : image_(image) {
    STRAKE_CHECK(payloads.size() == image.payload_offsets.size(), "one payload a dataset");
    for (std::size_t i = 0; i < payloads.size(); ++i) payloads_.push_back({image.payload_offsets[i], payloads[i]});
    std::ranges::sort(payloads_, {}, &Payload::begin_bytes);
  }

  std::uint64_t size_bytes() const { return image_.size_bytes; }

  // Hands out [begin, end) in order, as pieces that lie together in memory: take(piece, offset in the file).
  template <typename Take>
  void pieces(std::uint64_t begin, std::uint64_t end, Take take) const {
    auto next = std::ranges::partition_point(
        payloads_, [&](const Payload& payload) { return payload.begin_bytes + payload.bytes.size() <= begin; });
    std::vector<std::byte> own;
    for (std::uint64_t at = begin; at < end;) {
      std::span<const std::byte> piece;
      const std::uint64_t payload_begin = next != payloads_.end() ? next->begin_bytes : image_.size_bytes;
      if (at < payload_begin) {
        own.resize(static_cast<std::size_t>(std::min(payload_begin, end) - at));
        image_.metadata.read(at, own);
        piece = own;
      } else {
        piece = next->bytes.subspan(static_cast<std::size_t>(at - payload_begin));
        if (piece.size() <= end - at) ++next;
        piece = piece.first(std::min<std::size_t>(piece.size(), end - at));
      }
      take(piece, at);
      at += piece.size();
    }
  }

 private:
  struct Payload {
    std::uint64_t begin_bytes;
    std::span<const std::byte> bytes;
  };
  const H5Image& image_;
  std::vector<Payload> payloads_;  // in the order of the file
};

// One file that is being written, move by move: a chunk, or several. They are independent of each other: run() is
// called by each thread.
class Writing {
 public:
  Writing(File& file, const FileBytes& content, const WriteOptions& options, Failpoints* failpoints)
      : file_(file),
        content_(content),
        chunk_bytes_(options.chunk_bytes),
        failpoints_(failpoints),
        direct_io_(options.direct_io && options.chunk_bytes % File::kDirectBytes == 0 && file.bypass_cache(true)),
        move_chunks_(direct_io_ ? std::max<std::size_t>(1, options.direct_move_bytes / chunk_bytes_) : 1),
        crcs_(static_cast<std::size_t>((content.size_bytes() + chunk_bytes_ - 1) / chunk_bytes_)) {}

  std::size_t moves() const { return (crcs_.size() + move_chunks_ - 1) / move_chunks_; }

  // Makes moves that nobody has begun, until none is left or any thread has failed.
  void run() noexcept {
    try {
      std::optional<AlignedBuffer> buffer;
      if (direct_io_) {
        buffer.emplace(static_cast<std::size_t>(std::min(move_chunks_ * chunk_bytes_, content_.size_bytes())));
      }
      while (!failed_.load(std::memory_order_relaxed)) {
        const std::size_t first = next_.fetch_add(1, std::memory_order_relaxed) * move_chunks_;
        if (first >= crcs_.size()) return;
        const std::size_t last = std::min(first + move_chunks_, crcs_.size());
        if (buffer.has_value()) {
          for (std::size_t chunk = first; chunk < last; ++chunk) {
            crcs_[chunk] =
                assemble(begin_of(chunk), begin_of(chunk + 1),
                         buffer->bytes().subspan(static_cast<std::size_t>(begin_of(chunk) - begin_of(first))));
          }
          write_whole(begin_of(first),
                      buffer->bytes().first(static_cast<std::size_t>(begin_of(last) - begin_of(first))));
        } else {
          crcs_[first] = write(begin_of(first), begin_of(last));
        }
        for (std::size_t chunk = first; chunk < last; ++chunk) hit(failpoints_, fmt::format("ckpt.write.{}", chunk));
      }
    } catch (...) {
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
  }

  // Behind every thread's run(): what is left of the file, and the checksums. Throws what the first that failed threw.
  std::vector<std::uint32_t> finish() {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
    if (direct_io_ && !tail_.empty()) {
      file_.bypass_cache(false);
      file_.write(tail_, content_.size_bytes() - tail_.size());
    }
    return std::move(crcs_);
  }

 private:
  std::uint32_t write(std::uint64_t begin, std::uint64_t end) {
    std::uint32_t crc = 0;
    content_.pieces(begin, end, [&](std::span<const std::byte> piece, std::uint64_t at) {
      crc = crc32c(piece, crc);
      file_.write(piece, at);
    });
    return crc;
  }

  // Of the last chunk's successor: where the file ends.
  std::uint64_t begin_of(std::size_t chunk) const { return std::min(chunk * chunk_bytes_, content_.size_bytes()); }

  std::uint32_t assemble(std::uint64_t begin, std::uint64_t end, std::span<std::byte> buffer) {
    std::uint32_t crc = 0;
    content_.pieces(begin, end, [&](std::span<const std::byte> piece, std::uint64_t at) {
      while (!piece.empty()) {
        const std::span<std::byte> copy =
            buffer.subspan(static_cast<std::size_t>(at - begin), std::min(kPieceBytes, piece.size()));
        std::memcpy(copy.data(), piece.data(), copy.size());
        crc = crc32c(copy, crc);
        piece = piece.subspan(copy.size());
        at += copy.size();
      }
    });
    return crc;
  }

  void write_whole(std::uint64_t begin, std::span<const std::byte> bytes) {
    const std::size_t whole_bytes = bytes.size() - bytes.size() % File::kDirectBytes;
    if (whole_bytes > 0) write_direct(bytes.first(whole_bytes), begin);
    if (whole_bytes == bytes.size()) return;
    const std::span<const std::byte> tail = bytes.subspan(whole_bytes);  // of the last move
    tail_.assign(tail.begin(), tail.end());
  }

  // Some file systems find out only here that they cannot.
  void write_direct(std::span<const std::byte> bytes, std::uint64_t begin) {
    try {
      file_.write(bytes, begin);
    } catch (const IoError& error) {
      if (error.error_number != EINVAL) throw;
      file_.bypass_cache(false);
      file_.write(bytes, begin);
    }
  }

  File& file_;
  const FileBytes& content_;
  const std::uint64_t chunk_bytes_;
  Failpoints* const failpoints_;
  const bool direct_io_;
  const std::size_t move_chunks_;
  std::vector<std::uint32_t> crcs_;
  std::vector<std::byte> tail_;  // what direct I/O cannot write: the end of the file
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;  // of the first that failed
};

}  // namespace

FileRecord write_shard_file(Files& files, const fs::path& path, const H5Image& image,
                            std::span<const std::span<const std::byte>> payloads, const WriteOptions& options,
                            Failpoints* failpoints) {
  STRAKE_CHECK(options.writers >= 1, "somebody has to write");
  const FileBytes content(image, payloads);
  const std::unique_ptr<File> file = files.open(path, OpenMode::kCreateNew);
  file->allocate(image.size_bytes);
  Writing writing(*file, content, options, failpoints);
  {
    std::vector<std::jthread> others;  // joined here
    const std::size_t useful = std::min(static_cast<std::size_t>(options.writers), writing.moves());
    try {
      for (std::size_t i = 1; i < useful; ++i) {
        const SignalsBlocked blocked;
        others.emplace_back([&writing] { writing.run(); });
      }
    } catch (const std::system_error&) {  // no more threads: fewer do it too
    }
    writing.run();
  }
  FileRecord record{path.filename().string(), image.size_bytes, options.chunk_bytes, writing.finish()};
  hit(failpoints, "ckpt.fsync.before");
  file->sync();
  hit(failpoints, "ckpt.fsync.after");
  file->close();
  return record;
}

}  // namespace strake::checkpoint
