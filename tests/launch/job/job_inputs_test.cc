// What a rank finds out about its token files before it takes memory.
#include "launch/job/job_inputs.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "data/token_file_writer.h"
#include "runtime/base/error.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/thrown_by.h"

namespace strake::launch {
namespace {

using test::thrown_by;

class JobInputsTest : public testing::Test {
 protected:
  static constexpr std::int64_t kVocab = 256, kSequence = 8, kMicroBatch = 2;

  JobInputsTest() {
    config_.model.layers = 1;
    config_.model.channels = 16;
    config_.model.heads = 2;
    config_.train.sequence = kSequence;
    config_.train.micro_batch = kMicroBatch;
    config_.train.global_batch = 12;
    config_.eval.batches = 6;
    write("train.bin", std::vector<std::int32_t>(1000, 3));
    write("val.bin", std::vector<std::int32_t>(1000, 3));
    config_.data.train = {path("train.bin")};
    config_.data.val = {path("val.bin")};
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  // Tokens with a sidecar that promises them to be below `vocab`, or without one.
  void write(const std::string& name, const std::vector<std::int32_t>& ids, std::int64_t vocab = kVocab,
             bool sidecar = true, const std::string& tokenizer = "counted") {
    data::TokenFileInfo info;
    info.vocab = 1 << 16;
    info.tokenizer = {.name = tokenizer, .hash = ""};
    data::TokenFileWriter writer(files_, path(name), info);
    writer.append(ids);
    writer.finish();
    writer.publish();
    data::TokenFileInfo told = writer.info();
    told.vocab = vocab;
    if (sidecar) {
      write_file_durably(files_, path(name) + ".json", data::sidecar_json(told));
    } else {
      files_.remove(path(name) + ".json");
    }
  }
  void open(int rank = 0, int ranks = 1) { JobInputs::open(config_, rank, ranks); }
  std::vector<std::pair<std::string, std::string>> identity() { return JobInputs::open(config_, 0, 1).identity(); }

  test::ScratchFolder folder_{test::ScratchFolder::Where::kMemory};
  PosixFiles files_;
  Config config_;
};

// Every token that an evaluation will read, each by the rank that will read it, and no other.
TEST_F(JobInputsTest, FindsHeldOutIdsThatTheModelHasNot) {
  constexpr int kRanks = 3;
  const std::int64_t batches = 6 / kRanks, batch_tokens = kMicroBatch * kSequence;
  const std::int64_t end = batches * kRanks * batch_tokens + 1;  // the target of the last token
  for (const bool sidecar : {true, false}) {
    config_.model.vocab = kVocab;
    for (std::int64_t bad = 0; bad < end + 2; ++bad) {
      std::vector<std::int32_t> ids(1000, 3);
      ids[static_cast<std::size_t>(bad)] = 300;
      write("val.bin", ids, kVocab, sidecar);
      int refusals = 0;
      for (int rank = 0; rank < kRanks; ++rank) {
        const std::string message = thrown_by<DataError>([&] { open(rank, kRanks); });
        const auto has = [&](std::int64_t input) {
          return input >= 0 && input < end - 1 && input / batch_tokens % kRanks == rank;
        };
        const bool reads = has(bad) || has(bad - 1);  // as an input, or as the target of the one before
        EXPECT_EQ(message != "nothing", reads) << "token " << bad << ", rank " << rank << ": " << message;
        if (message == "nothing") continue;
        ++refusals;
        EXPECT_NE(message.find(fmt::format("token file \"{}\": token {} is id 300, but the vocabulary has 256",
                                           path("val.bin"), bad)),
                  std::string::npos)
            << message;
      }
      EXPECT_EQ(refusals > 0, bad < end) << bad;
    }
  }
}

TEST_F(JobInputsTest, ComparesBothVocabulariesWithTheModel) {
  config_.model.vocab = 200;
  EXPECT_EQ(thrown_by<ConfigError>([&] { open(); }),
            fmt::format("model.vocab = 200 is smaller than the vocabulary of {} (256, data.train); raise it, or set 0",
                        path("train.bin")));
  write("val.bin", std::vector<std::int32_t>(1000, 3), 300);
  config_.model.vocab = 0;
  EXPECT_EQ(
      thrown_by<ConfigError>([&] { open(); }),
      fmt::format("model.vocab = 256 is smaller than the vocabulary of {} (300, data.val); raise it", path("val.bin")));
  config_.model.vocab = 300;
  EXPECT_NO_THROW(open());
}

TEST_F(JobInputsTest, LooksAtTheIdsOfTrainingFilesWithoutSidecar) {
  config_.data.val.clear();
  config_.model.vocab = kVocab;
  std::vector<std::int32_t> ids(500'000, 3);
  ids.back() = 256;
  write("train.bin", ids, kVocab, false);
  const std::string message = thrown_by<DataError>([&] { open(); });
  EXPECT_NE(message.find("train.bin\": token 499999 is id 256, but the vocabulary has 256"), std::string::npos)
      << message;
  ids.back() = 255;
  ids[40'000] = 256;  // start-up does not read all
  write("train.bin", ids, kVocab, false);
  EXPECT_NO_THROW(open());
  config_.model.vocab = 0;
  EXPECT_NE(thrown_by<ConfigError>([&] { open(); }).find("set model.vocab"), std::string::npos);
}

TEST_F(JobInputsTest, NeedsABatchOfHeldOutTokensForEachRank) {
  const auto tokens = [&](std::size_t count) { write("val.bin", std::vector<std::int32_t>(count, 3)); };
  tokens(3 * kMicroBatch * kSequence + 1);
  EXPECT_NO_THROW(open(2, 3));
  tokens(3 * kMicroBatch * kSequence);
  const std::string message = thrown_by<DataError>([&] { open(2, 3); });
  EXPECT_NE(message.find(fmt::format("data.val: {} holds 48 tokens, too few for one batch of each rank: ranks x "
                                     "train.micro_batch x train.sequence + 1 = 3 x 2 x 8 + 1 = 49; hold out more text",
                                     path("val.bin"))),
            std::string::npos)
      << message;
  EXPECT_NO_THROW(open(0, 2));
  write("train.bin", std::vector<std::int32_t>(8, 3));
  EXPECT_NE(thrown_by<DataError>([&] { open(); }).find("data.train: "), std::string::npos);
}

TEST_F(JobInputsTest, RefusesToHoldOutWhatIsTrainedOn) {
  std::filesystem::create_directory(path("a"));
  write("a/b.bin", std::vector<std::int32_t>(1000, 3));
  std::filesystem::create_symlink("train.bin", path("link.bin"));
  config_.data.train = {path("train.bin"), path("a/b.bin")};
  for (const std::vector<std::string>& val :
       {std::vector{path("train.bin")}, {path("link.bin")}, {path("val.bin"), path("./train.bin")}, {path("t*.bin")}}) {
    config_.data.val = val;
    const std::string message = thrown_by<ConfigError>([&] { open(); });
    EXPECT_NE(message.find("is also trained on (data.train)"), std::string::npos) << message;
  }
  config_.data.train = {path("*n.bin")};
  config_.data.val = {path("val.bin")};
  EXPECT_NO_THROW(open());
  config_.data.train = {path("[tv]*.bin")};
  EXPECT_THROW(open(), ConfigError) << "the pattern takes the held-out file too";
  config_.data.train = config_.data.val;
  EXPECT_NO_THROW(open()) << "one file on purpose";
}

TEST_F(JobInputsTest, AsksWhatBareIdsAre) {
  const std::vector<std::uint16_t> ids(1000, 7);
  std::ofstream(path("raw.bin"), std::ios::binary)
      .write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * 2));
  config_.data.train = {path("raw.bin")};
  config_.model.vocab = 8;
  config_.data.val.clear();
  EXPECT_NE(thrown_by<ConfigError>([&] { open(); }).find("set data.dtype = u16 or u32"), std::string::npos);
  config_.data.dtype = data::TokenType::kU16;
  EXPECT_EQ(JobInputs::open(config_, 0, 1).train->tokens(), 1000);
  config_.data.dtype = data::TokenType::kU32;  // 7 * 65537
  EXPECT_NE(thrown_by<DataError>([&] { open(); }).find("token 0 is id 458759"), std::string::npos);
}

using Identity = std::vector<std::pair<std::string, std::string>>;

// Where the model is too much for a GPU the CPU is a way out, but not from everything.
TEST_F(JobInputsTest, NamesTheCpuWhereItHelps) {
  const auto refusal = [&](DeviceKind device) {
    return thrown_by<ConfigError>([&] { job_of(config_, 0, 1, device, kVocab); });
  };
  config_.model.channels = 18;  // no multiple of what GPUs take
  EXPECT_TRUE(refusal(DeviceKind::kCuda).ends_with("; change the model or the batch, or set run.device = cpu"));
  config_.train.dtype = ComputeType::kBF16;  // which the CPU does not compute in
  EXPECT_TRUE(refusal(DeviceKind::kCuda).ends_with(", or set run.device = cpu and train.dtype = f32"));
  config_.train.dtype = ComputeType::kAuto;
  config_.train.micro_batch = config_.train.global_batch = 1 << 20;
  config_.train.sequence = 1 << 24;
  config_.model.channels = 1 << 18;
  for (const DeviceKind device : {DeviceKind::kCpu, DeviceKind::kCuda}) {
    const std::string text = refusal(device);
    EXPECT_NE(text.find("too large for any device"), std::string::npos) << text;
    EXPECT_TRUE(text.ends_with("; change the model or the batch")) << text;
  }
}

TEST_F(JobInputsTest, IdentityTellsDataApart) {
  const Identity first = identity();
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(first[0].first, "data.train");
  EXPECT_TRUE(first[0].second.starts_with("1000 tokens, u16, checksum ")) << first[0].second;
  EXPECT_EQ(first[1].first, "data.val");
  EXPECT_EQ(first[2], std::pair(std::string("tokenizer"), std::string("\"counted\"")));
  EXPECT_EQ(identity(), first);

  std::filesystem::create_directory(path("elsewhere"));
  for (const char* name : {"train.bin", "train.bin.json"}) {
    std::filesystem::rename(path(name), folder_.path() / "elsewhere" / name);
  }
  config_.data.train = {path("elsewhere/train.bin")};
  EXPECT_EQ(identity(), first) << "a path may differ between hosts";

  std::vector<std::int32_t> ids(1000, 3);
  ids[500] = 4;
  write("val.bin", ids);
  const Identity other = identity();
  EXPECT_EQ(other[0], first[0]);
  EXPECT_NE(other[1], first[1]);
}

TEST_F(JobInputsTest, IdentityOfSeveralFilesNamesEach) {
  write("b.bin", std::vector<std::int32_t>(100, 5));
  config_.data.train = {path("train.bin"), path("b.bin")};
  config_.data.val.clear();
  const Identity both = identity();
  ASSERT_EQ(both.size(), 4u);
  EXPECT_EQ(both[0], std::pair(std::string("data.train"), std::string("2 files, 1100 tokens")));
  EXPECT_EQ(both[1].first, "data.train[0]");
  EXPECT_EQ(both[2].first, "data.train[1]");
  config_.data.train = {path("b.bin"), path("train.bin")};
  const Identity swapped = identity();
  EXPECT_EQ(swapped[0], both[0]);
  EXPECT_EQ(swapped[1].second, both[2].second);
  EXPECT_NE(swapped[1].second, both[1].second) << "the order counts";
}

}  // namespace
}  // namespace strake::launch
