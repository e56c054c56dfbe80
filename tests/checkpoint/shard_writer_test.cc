#include "checkpoint/shard_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/io/crc32c.h"
#include "runtime/io/forwarding_files.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"
#include "tests/support/scratch_folder.h"

namespace strake::checkpoint {
namespace {

constexpr std::uint64_t kShardChunk = 8192;
constexpr std::uint64_t kShardMove = 3 * kShardChunk + 1;  // three chunks
constexpr const char* kShardPath = "/c/rank-0000.h5";

// Payloads that begin and end anywhere in chunks: small ones, one of many chunks, and a last one.
struct ShardContent {
  ShardContent() {
    std::vector<H5Dataset> datasets;
    for (const std::int64_t elems : {3, 40'001, 17, 20'000, 1}) {
      datasets.push_back({"param/" + std::to_string(datasets.size()), DType::kF32, {elems}, {elems}, 0});
      std::vector<std::byte>& bytes = owned.emplace_back(static_cast<std::size_t>(elems) * 4);
      for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 31 + i / 251 + owned.size());
    }
    for (const std::vector<std::byte>& bytes : owned) views.emplace_back(bytes);
    image = lay_out_h5_file(datasets, {});
  }
  std::vector<std::vector<std::byte>> owned;
  std::vector<std::span<const std::byte>> views;
  H5Image image;
};

// Files that can be written past a cache, and keep to its rule as a kernel does.
class DirectFiles final : public ForwardingFiles {
 public:
  explicit DirectFiles(Files& inner) : ForwardingFiles(inner) {}
  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    return std::make_unique<DirectFile>(*this, ForwardingFiles::open(path, mode));
  }
  bool refuses = false;  // each write past the cache
  std::atomic<std::int64_t> direct_bytes{0}, cached_bytes{0}, misaligned{0};

 private:
  class DirectFile final : public ForwardingFile {
   public:
    DirectFile(DirectFiles& owner, std::unique_ptr<File> inner) : ForwardingFile(std::move(inner)), owner_(owner) {}
    bool bypass_cache(bool bypass) override {
      bypasses_ = bypass;
      return true;
    }

   protected:
    std::ptrdiff_t write_some(std::span<const std::byte> bytes, std::uint64_t offset) override {
      if (!bypasses_) {
        owner_.cached_bytes += static_cast<std::int64_t>(bytes.size());
        return ForwardingFile::write_some(bytes, offset);
      }
      const bool aligned = reinterpret_cast<std::uintptr_t>(bytes.data()) % kDirectBytes == 0 &&
                           offset % kDirectBytes == 0 && bytes.size() % kDirectBytes == 0;
      if (!aligned) ++owner_.misaligned;
      if (!aligned || owner_.refuses) return -EINVAL;
      owner_.direct_bytes += static_cast<std::int64_t>(bytes.size());
      return ForwardingFile::write_some(bytes, offset);
    }

   private:
    DirectFiles& owner_;
    std::atomic<bool> bypasses_{false};
  };
};

std::string written(Files& files, const WriteOptions& options) {
  const ShardContent content;
  const FileRecord record = write_shard_file(files, kShardPath, content.image, content.views, options, nullptr);
  const std::string bytes = read_file(files, kShardPath, 1 << 24);
  EXPECT_EQ(bytes.size(), record.size_bytes);
  for (std::size_t chunk = 0; chunk < record.chunk_crcs.size(); ++chunk) {
    const std::string_view there = std::string_view(bytes).substr(chunk * options.chunk_bytes, options.chunk_bytes);
    EXPECT_EQ(record.chunk_crcs[chunk], crc32c(bytes_of(there))) << "chunk " << chunk;
  }
  return bytes;
}

std::string plainly_written() {
  test::MemoryFiles files;
  files.make_directory("/c");
  return written(files, {.chunk_bytes = kShardChunk});
}

TEST(ShardWriter, HoweverManyWriteAndWhicheverWayTheFileIsTheSame) {
  const std::string expected = plainly_written();
  for (const int writers : {1, 2, 3, 64}) {
    for (const bool direct_io : {false, true}) {
      SCOPED_TRACE(testing::Message() << writers << " writers" << (direct_io ? ", direct" : ""));
      test::MemoryFiles memory;
      memory.make_directory("/c");
      DirectFiles files(memory);
      EXPECT_TRUE(written(files, {.chunk_bytes = kShardChunk,
                                  .writers = writers,
                                  .direct_io = direct_io,
                                  .direct_move_bytes = kShardMove}) == expected);
      EXPECT_EQ(files.misaligned, 0);
      if (direct_io) {
        EXPECT_GT(files.direct_bytes, 0);
        EXPECT_LT(files.cached_bytes, static_cast<std::int64_t>(File::kDirectBytes)) << "but for the file's last bytes";
      } else {
        EXPECT_EQ(files.direct_bytes, 0);
      }
    }
  }
}

// Where it cannot be done past the cache, it is done through it: a file system that says so at once, one that says so
// when it is written to, and a write that stops in the middle of a block.
TEST(ShardWriter, FallsBackToTheCache) {
  const std::string expected = plainly_written();
  const WriteOptions options{
      .chunk_bytes = kShardChunk, .writers = 2, .direct_io = true, .direct_move_bytes = kShardMove};
  test::MemoryFiles none;
  none.make_directory("/c");
  EXPECT_TRUE(written(none, options) == expected);

  test::MemoryFiles memory;
  memory.make_directory("/c");
  DirectFiles refusing(memory);
  refusing.refuses = true;
  EXPECT_TRUE(written(refusing, options) == expected);
  EXPECT_EQ(refusing.direct_bytes, 0);

  test::MemoryFiles shortened;
  shortened.make_directory("/c");
  DirectFiles direct(shortened);
  test::FaultyFiles faulty(direct);
  faulty.shorten_writes();
  EXPECT_TRUE(written(faulty, options) == expected);
}

// A chunk that is no multiple of what direct I/O takes is none for it.
TEST(ShardWriter, OddChunksGoThroughTheCache) {
  test::MemoryFiles memory;
  memory.make_directory("/c");
  DirectFiles files(memory);
  written(files, {.chunk_bytes = 4097, .writers = 2, .direct_io = true, .direct_move_bytes = kShardMove});
  EXPECT_EQ(files.misaligned, 0);
  EXPECT_EQ(files.direct_bytes, 0);
}

// On this machine's own file systems, whatever they can.
TEST(ShardWriter, TheOperatingSystemsFilesAreTheSame) {
  const std::string expected = plainly_written();
  const ShardContent content;
  for (const auto where : {test::ScratchFolder::Where::kDisk, test::ScratchFolder::Where::kMemory}) {
    const test::ScratchFolder folder(where);
    PosixFiles files;
    const auto path = folder.path() / "rank-0000.h5";
    const FileRecord record = write_shard_file(
        files, path, content.image, content.views,
        {.chunk_bytes = kShardChunk, .writers = 3, .direct_io = true, .direct_move_bytes = kShardMove}, nullptr);
    EXPECT_TRUE(read_file(files, path, 1 << 24) == expected);
    EXPECT_EQ(record.size_bytes, content.image.size_bytes);
  }
}

// Whichever call fails, on whichever thread: one error says so, nobody goes on, and the file is given up.
TEST(ShardWriter, AFailureOnAnyThreadEndsAll) {
  const ShardContent content;
  for (const bool direct_io : {false, true}) {
    test::MemoryFiles memory;
    memory.make_directory("/c");
    DirectFiles direct(memory);
    test::FaultyFiles files(direct);
    const WriteOptions options{
        .chunk_bytes = kShardChunk, .writers = 3, .direct_io = direct_io, .direct_move_bytes = kShardMove};
    const auto write = [&] {
      files.restart_count();
      memory.remove(kShardPath);
      write_shard_file(files, kShardPath, content.image, content.views, options, nullptr);
    };
    write();
    const std::int64_t calls = files.changing_calls();
    ASSERT_GT(calls, 10);
    for (std::int64_t call = 1; call <= calls; ++call) {
      SCOPED_TRACE(testing::Message() << "call " << call << " of " << calls);
      files.fail_at(call, EIO);
      try {
        write();
        ADD_FAILURE() << "not noticed";
      } catch (const IoError& error) {
        EXPECT_EQ(error.error_number, EIO);
      }
      EXPECT_LE(files.changing_calls(), call < calls ? calls - 1 : calls) << "the rest was done all the same";
      files.heal();
    }
  }
}

class WritingThreads final : public Failpoints {
 public:
  void hit(std::string_view name) override {
    const std::lock_guard lock(mutex_);
    if (!name.starts_with("ckpt.write.")) return;
    ids.insert(std::this_thread::get_id());
    EXPECT_TRUE(names.insert(std::string(name)).second) << name << " was written twice";
  }
  std::set<std::thread::id> ids;
  std::set<std::string> names;

 private:
  std::mutex mutex_;
};

// One writer is the caller; no more write than there are chunks.
TEST(ShardWriter, WritesEachChunkOnce) {
  const ShardContent content;
  for (const int writers : {1, 4}) {
    WritingThreads threads;
    test::MemoryFiles files;
    files.make_directory("/c");
    const FileRecord record = write_shard_file(files, kShardPath, content.image, content.views,
                                               {.chunk_bytes = kShardChunk, .writers = writers}, &threads);
    EXPECT_EQ(threads.names.size(), record.chunk_crcs.size());
    EXPECT_LE(threads.ids.size(), static_cast<std::size_t>(writers));
    if (writers == 1) {
      EXPECT_EQ(threads.ids, std::set{std::this_thread::get_id()});
    }
  }
}

}  // namespace
}  // namespace strake::checkpoint
