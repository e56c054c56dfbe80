#include "checkpoint/verified_reads.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/base/signals_blocked.h"

namespace strake::checkpoint {
namespace {

// What is read at once where more of a file is wanted; less is not worth a thread.
constexpr std::uint64_t kReadBytes = 8 << 20;

// Chunks that lie one behind the other and are read at once.
struct ChunkRun {
  std::size_t reads;  // index into the plan's files
  std::size_t first_chunk;
  std::uint64_t begin_bytes, end_bytes;  // in the file
  std::size_t first_range;               // that ends behind begin_bytes
  bool straight;                         // all of it belongs to that range: no copy is needed
};

std::vector<ChunkRun> runs_of(const Manifest& manifest, std::span<const FileReads> reads) {
  std::vector<ChunkRun> runs;
  for (std::size_t f = 0; f < reads.size(); ++f) {
    const FileRecord& record = manifest.files[reads[f].file];
    const std::vector<ReadRange>& ranges = reads[f].ranges;
    std::size_t range = 0;
    std::size_t next_chunk = SIZE_MAX;
    for (const std::size_t chunk : reads[f].chunks) {
      const std::uint64_t begin = chunk * record.chunk_bytes;
      const std::uint64_t end = std::min(begin + record.chunk_bytes, record.size_bytes);
      while (range < ranges.size() && ranges[range].offset_bytes + ranges[range].length_bytes <= begin) ++range;
      const bool straight = range < ranges.size() && ranges[range].offset_bytes <= begin &&
                            end <= ranges[range].offset_bytes + ranges[range].length_bytes;
      // A straight run stays inside of one range.
      const bool goes_on = chunk == next_chunk && runs.back().straight == straight &&
                           (!straight || runs.back().first_range == range) &&
                           end - runs.back().begin_bytes <= kReadBytes;
      if (goes_on) {
        runs.back().end_bytes = end;
      } else {
        runs.push_back({f, chunk, begin, end, range, straight});
      }
      next_chunk = chunk + 1;
    }
  }
  return runs;
}

// A file of the plan, open while runs of it are read: a run has them in the order of files, so that few are at a time.
class SharedReader {
 public:
  void expect_run() { ++runs_left_; }
  const ChunkReader& open(Files& files, const std::filesystem::path& folder, const FileRecord& record) {
    const std::lock_guard lock(mutex_);
    if (reader_ == nullptr) reader_ = std::make_unique<ChunkReader>(files, folder, record);
    return *reader_;
  }
  void run_ended() {
    const std::lock_guard lock(mutex_);
    if (--runs_left_ == 0) reader_.reset();
  }

 private:
  std::mutex mutex_;
  std::size_t runs_left_ = 0;
  std::unique_ptr<ChunkReader> reader_;
};

class VerifiedReads {
 public:
  VerifiedReads(Files& files, const std::filesystem::path& folder, const Manifest& manifest,
                std::span<const FileReads> reads, std::span<const std::span<std::byte>> parts)
      : files_(files),
        folder_(folder),
        manifest_(manifest),
        reads_(reads),
        parts_(parts),
        runs_(runs_of(manifest, reads)),
        readers_(reads.size()) {
    for (const ChunkRun& run : runs_) readers_[run.reads].expect_run();
  }

  ReadTotals read(int threads) {
    for (const FileReads& reads : reads_) check_size(files_, folder_, manifest_.files[reads.file]);
    {
      std::vector<std::jthread> others;
      const std::size_t useful = std::min(runs_.size(), static_cast<std::size_t>(std::max(threads, 1)));
      for (std::size_t thread = 1; thread < useful; ++thread) {
        const SignalsBlocked blocked;
        others.emplace_back([this] { read_runs(); });
      }
      read_runs();
    }
    if (failure_ != nullptr) std::rethrow_exception(failure_);
    ReadTotals totals{0, reads_.size()};
    for (const ChunkRun& run : runs_) totals.bytes += run.end_bytes - run.begin_bytes;
    return totals;
  }

 private:
  // Whoever is done takes the next one. None behind the first that failed is begun, and all before it are ended: so
  // the failure that counts is the same however threads run.
  void read_runs() {
    std::vector<std::byte> buffer;
    for (std::size_t at; (at = next_.fetch_add(1)) < first_failed_.load();) {
      try {
        read_run(runs_[at], buffer);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (at < first_failed_) {
          first_failed_ = at;
          failure_ = std::current_exception();
        }
      }
      readers_[runs_[at].reads].run_ended();
    }
  }

  void read_run(const ChunkRun& run, std::vector<std::byte>& buffer) {
    const FileReads& reads = reads_[run.reads];
    const ChunkReader& reader = readers_[run.reads].open(files_, folder_, manifest_.files[reads.file]);
    const auto run_bytes = static_cast<std::size_t>(run.end_bytes - run.begin_bytes);
    if (run.straight) {
      const ReadRange& range = reads.ranges[run.first_range];
      reader.read_into(
          parts_[range.planned].subspan(range.planned_bytes + (run.begin_bytes - range.offset_bytes), run_bytes),
          run.first_chunk);
      return;
    }
    buffer.resize(std::max(buffer.size(), run_bytes));
    reader.read_into(std::span(buffer).first(run_bytes), run.first_chunk);
    for (std::size_t i = run.first_range; i < reads.ranges.size(); ++i) {
      const ReadRange& range = reads.ranges[i];
      const std::uint64_t begin = std::max(range.offset_bytes, run.begin_bytes);
      const std::uint64_t end = std::min(range.offset_bytes + range.length_bytes, run.end_bytes);
      if (begin >= end) break;  // they stand in order
      std::memcpy(parts_[range.planned].data() + range.planned_bytes + (begin - range.offset_bytes),
                  buffer.data() + (begin - run.begin_bytes), end - begin);
    }
  }

  Files& files_;
  const std::filesystem::path& folder_;
  const Manifest& manifest_;
  const std::span<const FileReads> reads_;
  const std::span<const std::span<std::byte>> parts_;
  const std::vector<ChunkRun> runs_;
  std::vector<SharedReader> readers_;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> first_failed_{runs_.size()};
  std::mutex mutex_;  // of a failure
  std::exception_ptr failure_;
};

}  // namespace

ReadTotals read_verified(Files& files, const std::filesystem::path& folder, const Manifest& manifest,
                         std::span<const FileReads> reads, std::span<const std::span<std::byte>> parts, int threads) {
  return VerifiedReads(files, folder, manifest, reads, parts).read(threads);
}

}  // namespace strake::checkpoint
