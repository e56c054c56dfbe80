// A checkpoint's bytes, read by several threads at once and by TensorReader: what is right is given out, what is not is
// found wherever it lies.
#include "checkpoint/verification.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <random>

#include "checkpoint/tensor_reader.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/memory_files.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::MemoryFiles;
using test::options_in;

constexpr std::int64_t kVerifiedStep = 10;
const fs::path kVerified = fs::path("/run/ckpt") / step_name(kVerifiedStep);

void flip_bit_in(Files& files, const fs::path& path, std::uint64_t byte, unsigned bit) {
  const auto file = files.open(path, OpenMode::kUpdate);
  std::array<std::byte, 1> one;
  ASSERT_EQ(file->read(one, byte), 1u);
  one[0] ^= static_cast<std::byte>(1u << bit);
  file->write(one, byte);
}

// What is said of it; empty: it is whole.
std::string verification_of(Files& files, int threads) {
  try {
    verify_checkpoint(files, kVerified, threads);
    return "";
  } catch (const CorruptError& error) {
    return error.what();
  }
}

#ifdef STRAKE_SANITIZED
constexpr std::uint64_t kStrideBytes = 4'999;
#else
constexpr std::uint64_t kStrideBytes = 499;
#endif

TEST(Verification, FindsAFlippedBitAnywhereAndNamesFileAndChunk) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(test::save_steps(files, 2, options_in("/run/ckpt"), {kVerifiedStep})));
  ASSERT_EQ(verification_of(files, 3), "");
  const Manifest manifest = read_manifest(files, kVerified);
  std::mt19937 random(1);
  int flipped = 0;
  for (const FileRecord& file : manifest.files) {
    for (std::uint64_t byte = random() % kStrideBytes; byte < file.size_bytes; byte += kStrideBytes, ++flipped) {
      const unsigned bit = random() % 8;
      flip_bit_in(files, kVerified / file.name, byte, bit);
      const std::string said = verification_of(files, 1 + flipped % 4);
      EXPECT_NE(said.find(fmt::format("{}: checksum of chunk {} (", file.name, byte / file.chunk_bytes)),
                std::string::npos)
          << file.name << ", byte " << byte << ": " << said;
      flip_bit_in(files, kVerified / file.name, byte, bit);
    }
  }
  EXPECT_GT(flipped, 4);
  EXPECT_EQ(verification_of(files, 4), "");
}

TEST(Verification, OfSeveralDamagedChunksTheFirstIsNamedAndTheOthersCounted) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(test::save_steps(files, 2, options_in("/run/ckpt"), {kVerifiedStep})));
  const std::uint64_t chunk_bytes = read_manifest(files, kVerified).files[0].chunk_bytes;
  for (const std::uint64_t chunk : {5u, 1u, 3u})
    flip_bit_in(files, kVerified / "rank-0001.h5", chunk * chunk_bytes + 9, 0);
  for (const int threads : {1, 4}) {
    const std::string said = verification_of(files, threads);
    EXPECT_NE(said.find("rank-0001.h5: checksum of chunk 1 ("), std::string::npos) << said;
    EXPECT_NE(said.find("(and 2 more like it)"), std::string::npos) << said;
  }
}

// No permission is not damage, whichever thread meets it.
class UnreadableFiles final : public ForwardingFiles {
 public:
  using ForwardingFiles::ForwardingFiles;
  std::unique_ptr<File> open(const fs::path& path, OpenMode mode) override {
    if (path.filename() == "rank-0001.h5") throw io_error("open", path, EACCES);
    return ForwardingFiles::open(path, mode);
  }
};

TEST(Verification, WhatCannotBeReadIsNotCalledDamaged) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(test::save_steps(files, 2, options_in("/run/ckpt"), {kVerifiedStep})));
  UnreadableFiles unreadable(files);
  EXPECT_THROW(verify_checkpoint(unreadable, kVerified, 4), IoError);
}

TEST(TensorReader, GivesAnyRangeOfAnyTensorOfAnyNumberOfRanks) {
  std::mt19937 random(7);
  for (const int ranks : {1, 2, 3}) {
    MemoryFiles files;
    ASSERT_TRUE(test::all_done(test::save_steps(files, ranks, options_in("/run/ckpt"), {kVerifiedStep})));
    const FoundCheckpoint found{kVerified, read_manifest(files, kVerified)};
    TensorReader reader(files, found);
    for (int i = 0; i < 200; ++i) {
      const TensorRecord& tensor = found.manifest.tensors[random() % found.manifest.tensors.size()];
      const auto begin = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(tensor.elems()));
      const auto elems = 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(tensor.elems() - begin));
      const std::uint64_t elem_bytes = size_bytes(tensor.dtype), first = static_cast<std::uint64_t>(begin) * elem_bytes;
      std::vector<std::byte> out(static_cast<std::size_t>(elems) * elem_bytes);
      reader.read(tensor, begin, out);
      const std::uint64_t hash = std::hash<std::string>()(tensor.name);
      for (std::size_t at = 0; at < out.size(); ++at) {
        ASSERT_EQ(out[at], test::state_byte(hash, kVerifiedStep, first + at)) << tensor.name << " byte " << first + at;
      }
    }
  }
}

TEST(TensorReader, GivesNothingOutThatIsDamaged) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(test::save_steps(files, 2, options_in("/run/ckpt"), {kVerifiedStep})));
  const FoundCheckpoint found{kVerified, read_manifest(files, kVerified)};
  const TensorRecord& tensor = *found.manifest.find("param/h.0.attn.weight");
  const ShardRecord& shard = tensor.shards.front();
  flip_bit_in(files, kVerified / found.manifest.files[shard.file].name, shard.offset_bytes + 5, 3);
  TensorReader reader(files, found);
  std::vector<std::byte> out(16);
  EXPECT_THROW(reader.read(tensor, 0, out), CorruptError);
}

}  // namespace
}  // namespace strake::checkpoint
