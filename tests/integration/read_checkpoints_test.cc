// Looking at what a run has kept, as a person does: generate, export, ckpt list, verify, view, diff, prune. Damage is
// told, older weights are never used in silence, and what only reads leaves a run folder as it was to the last byte and
// time stamp.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "checkpoint/directory.h"
#include "checkpoint/folder_lock.h"
#include "checkpoint/tensor_reader.h"
#include "launch/run/run_folder.h"
#include "runtime/base/error.h"
#include "runtime/io/crc32c.h"
#include "tests/integration/strake_program.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {
namespace {

namespace fs = std::filesystem;
constexpr int kAlone = 0;

class ReadCheckpoints : public testing::Test {
 protected:
  // A run with checkpoints of steps 2, 4 and 6.
  static void SetUpTestSuite() {
    folder = new ScratchFolder(ScratchFolder::Where::kMemory);
    std::ofstream text(folder->path() / "text.txt");
    for (int i = 0; i < 400; ++i) text << "The " << i << "th line of a text that is to be learned.\n";
    text.close();
    ASSERT_EQ(strake({"data", "prepare", at("text.txt"), "--train", at("train.bin"), "--val", at("val.bin")}).exit_code,
              0);
    std::ofstream(folder->path() / "job.toml")
        << "[model]\nlayers = 1\nchannels = 16\nheads = 2\n[data]\ntrain = \"" << at("train.bin")
        << "\"\n[train]\nsteps = 6\nglobal_batch = 4\nmicro_batch = 2\nsequence = 16\n[optimizer]\nlearning_rate = "
           "2e-2\n"
        << "min_learning_rate = 2e-3\nwarmup_steps = 0\n[checkpoint]\nevery = 2\nkeep = 10\n[run]\ndevice = \"cpu\"\n";
    const ProgramEnd end = strake({"train", at("job.toml"), "run.dir=" + at("whole")});
    ASSERT_EQ(end.exit_code, 0) << end.output;
  }
  static void TearDownTestSuite() { delete folder; }

  void SetUp() override {
    fs::remove_all(run());
    fs::copy(folder->path() / "whole", run(), fs::copy_options::recursive);
  }

  static std::string at(const std::string& name) { return (folder->path() / name).string(); }
  static ProgramEnd strake(std::vector<std::string> arguments, int ranks = kAlone) {
    return StrakeProgram::run(ranks, std::move(arguments), folder->path());
  }
  static fs::path run() { return folder->path() / "run"; }
  static fs::path checkpoint(std::int64_t step) {
    return launch::checkpoint_folder(run()) / checkpoint::step_name(step);
  }
  static ProgramEnd generate(const fs::path& path) {
    return strake({"generate", path.string(), "--prompt", "The ", "--tokens", "20", "--device", "cpu"});
  }
  static ProgramEnd exported(const fs::path& path) { return strake({"export", path.string(), "--out", at("out")}); }

  // Damages that every check of sizes passes over, and one that it sees.
  static void flip_byte(std::int64_t step) {
    // All of the file, byte for byte: wherever the weights lie.
    const fs::path path = checkpoint(step) / "rank-0000.h5";
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    for (std::uint64_t offset = 5000; offset < fs::file_size(path); offset += 5000) {
      file.seekg(static_cast<std::streamoff>(offset));
      const char byte = static_cast<char>(file.get() ^ 1);
      file.seekp(static_cast<std::streamoff>(offset));
      file.put(byte);
    }
  }
  static void truncate(std::int64_t step) { fs::resize_file(checkpoint(step) / "rank-0000.h5", 9000); }
  static void remove_manifest(std::int64_t step) { fs::remove(checkpoint(step) / "manifest.json"); }

  // Names, sizes, times and contents of everything in the run folder.
  static std::map<std::string, std::string> everything() {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(run())) {
      std::ostringstream text;
      text << entry.last_write_time().time_since_epoch().count() << ' ';
      if (entry.is_regular_file()) text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
      all[entry.path().string()] = text.str();
    }
    return all;
  }

  static inline ScratchFolder* folder = nullptr;
};

// What follows the prompt is that of the checkpoint that is used: which one shows in the text.
TEST_F(ReadCheckpoints, OfADamagedNewestTheOlderIsUsedAndSaid) {
  const std::string of_4 = generate(checkpoint(4)).output, of_6 = generate(run()).output;
  ASSERT_NE(of_4, of_6) << "the two cannot be told apart";
  for (const auto damage : {flip_byte, truncate, remove_manifest}) {
    SetUp();
    damage(6);
    const auto before = everything();
    const ProgramEnd text = generate(run());
    EXPECT_EQ(text.exit_code, 0) << text.output;
    EXPECT_NE(text.output.find("warning: " + run().string() + ": the checkpoint of step 6 is damaged ("),
              std::string::npos)
        << text.output;
    EXPECT_NE(text.output.find("takes that of step 4, 2 steps older"), std::string::npos) << text.output;
    EXPECT_TRUE(text.output.ends_with(of_4)) << text.output << "\nnot\n" << of_4;

    const ProgramEnd out = exported(run());
    EXPECT_EQ(out.exit_code, 0) << out.output;
    EXPECT_NE(out.output.find("takes that of step 4"), std::string::npos) << out.output;
    EXPECT_NE(out.output.find("step 4 of " + checkpoint(4).string()), std::string::npos) << out.output;
    EXPECT_TRUE(everything() == before) << "a command that reads has changed the run folder";
  }
}

TEST_F(ReadCheckpoints, OfTwoDamagedOnesTheThirdIsUsed) {
  flip_byte(6);
  truncate(4);
  const ProgramEnd end = generate(run());
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("of step 6 is damaged"), std::string::npos) << end.output;
  EXPECT_NE(end.output.find("of step 4 is damaged"), std::string::npos) << end.output;
  EXPECT_NE(end.output.find("takes that of step 2, 4 steps older"), std::string::npos) << end.output;
}

TEST_F(ReadCheckpoints, WithoutAWholeOneItIsAnErrorThatSaysWhy) {
  flip_byte(6);
  truncate(4);
  remove_manifest(2);
  for (const ProgramEnd& end : {generate(run()), exported(run())}) {
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    EXPECT_NE(end.errors()[0].find("none of its checkpoints is whole; that of step 6: "), std::string::npos)
        << end.output;
    EXPECT_NE(end.errors()[0].find("restore one from a copy"), std::string::npos) << end.output;
  }
}

// No other weights than those that were named; the error says how to get others.
TEST_F(ReadCheckpoints, OneThatIsNamedIsUsedOrRefused) {
  for (const auto damage : {flip_byte, truncate, remove_manifest}) {
    SetUp();
    damage(6);
    for (const ProgramEnd& end : {generate(checkpoint(6)), exported(checkpoint(6)), generate(checkpoint(6) / "")}) {
      EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << end.output;
      ASSERT_EQ(end.errors().size(), 1u) << end.output;
      EXPECT_NE(end.errors()[0].find("this checkpoint is damaged: name " + checkpoint(6).parent_path().string()),
                std::string::npos)
          << end.output;
    }
    EXPECT_EQ(generate(checkpoint(4)).exit_code, 0);
    EXPECT_EQ(generate(checkpoint(4).parent_path()).exit_code, 0) << "the folder that the error names";
  }
}

// Training has set the newest aside: what is older is not used in silence either.
TEST_F(ReadCheckpoints, OneThatWasSetAsideIsRemembered) {
  flip_byte(6);
  ASSERT_EQ(strake({"train", at("job.toml"), "run.dir=" + run().string(), "train.steps=4"}).exit_code, 0);
  const ProgramEnd text = generate(run());
  EXPECT_NE(text.output.find("of step 6 is damaged (set aside as .bad-step-00000006)"), std::string::npos)
      << text.output;
  const ProgramEnd list = strake({"ckpt", "list", run().string()});
  EXPECT_NE(list.output.find(".bad-step-00000006  step 6  was found damaged and set aside"), std::string::npos)
      << list.output;
}

TEST_F(ReadCheckpoints, ThatAllWereSetAsideIsSaid) {
  for (const std::int64_t step : {2, 4, 6}) {
    std::filesystem::rename(checkpoint(step), checkpoint(step).parent_path() / (".bad-" + checkpoint::step_name(step)));
  }
  const ProgramEnd end = strake({"ckpt", "verify", run().string()});
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << end.output;
  ASSERT_EQ(end.errors().size(), 1u) << end.output;
  EXPECT_NE(end.errors()[0].find("no whole checkpoint is left: all 3 were found damaged and set aside"),
            std::string::npos)
      << end.output;
}

std::vector<std::string> lines(const ProgramEnd& end) {
  std::vector<std::string> out;
  std::istringstream text(end.output);
  for (std::string line; std::getline(text, line);) out.push_back(line);
  return out;
}

TEST_F(ReadCheckpoints, OneThatIsNamedIsListedAlone) {
  for (const std::string& named : {checkpoint(4).string(), checkpoint(4).string() + "/"}) {
    const ProgramEnd list = strake({"ckpt", "list", named});
    EXPECT_EQ(list.exit_code, 0) << list.output;
    ASSERT_EQ(lines(list).size(), 1u) << list.output;
    EXPECT_TRUE(lines(list)[0].starts_with(checkpoint(4).string() + "  step 4  ")) << list.output;
  }
  const ProgramEnd none = strake({"ckpt", "list", checkpoint(5).string()});
  EXPECT_EQ(none.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << none.output;
}

TEST_F(ReadCheckpoints, TheListSaysWholeOnlyOfWhatWasVerified) {
  flip_byte(6);
  truncate(2);
  const auto before = everything();
  const ProgramEnd list = strake({"ckpt", "list", run().string()});
  EXPECT_EQ(list.exit_code, 0) << list.output;
  ASSERT_EQ(lines(list).size(), 3u) << list.output;
  EXPECT_TRUE(lines(list)[0].ends_with("not verified (manifest and file sizes are right)")) << list.output;
  EXPECT_TRUE(lines(list)[1].ends_with("not verified (manifest and file sizes are right)")) << list.output;
  EXPECT_NE(lines(list)[2].find("rank-0000.h5: 9000 bytes"), std::string::npos) << list.output;
  EXPECT_EQ(list.output.find("whole"), std::string::npos) << list.output;

  const ProgramEnd verified = strake({"ckpt", "list", run().string(), "--verify"});
  EXPECT_EQ(verified.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << verified.output;
  ASSERT_EQ(lines(verified).size(), 5u) << verified.output;
  EXPECT_NE(lines(verified)[0].find("checksum of chunk 0"), std::string::npos) << verified.output;
  EXPECT_TRUE(lines(verified)[1].ends_with("whole, every byte is as written")) << verified.output;
  EXPECT_EQ(verified.errors().size(), 2u) << verified.output;
  const ProgramEnd each = strake({"ckpt", "verify", run().string()});
  EXPECT_EQ(each.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << each.output;
  EXPECT_NE(each.output.find(checkpoint(4).string() + ": every byte is as written"), std::string::npos) << each.output;
  EXPECT_EQ(each.errors().size(), 2u) << each.output;
  EXPECT_TRUE(everything() == before) << "a command that reads has changed the run folder";
}

// Wherever it is, in whichever file of whichever checkpoint.
TEST_F(ReadCheckpoints, VerifyFindsAFlippedBitAnywhere) {
  const ProgramEnd whole = strake({"ckpt", "verify", run().string()});
  EXPECT_EQ(whole.exit_code, 0) << whole.output;
  ASSERT_EQ(lines(whole).size(), 3u) << whole.output;
  for (const std::string& line : lines(whole)) EXPECT_TRUE(line.ends_with(" MB/s")) << line;
  std::mt19937 random(11);
  for (int trial = 0; trial < 12; ++trial) {
    const std::int64_t step = 2 + 2 * (trial % 3);
    const std::string name = trial % 4 == 0 ? "manifest.json" : "rank-0000.h5";
    const fs::path path = checkpoint(step) / name;
    const auto offset = static_cast<std::streamoff>(random() % fs::file_size(path));
    const auto flip = [&, bit = 1 << random() % 8] {
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      file.seekg(offset);
      const char byte = static_cast<char>(file.get() ^ bit);
      file.seekp(offset);
      file.put(byte);
    };
    flip();
    const ProgramEnd end = strake({"ckpt", "verify", trial % 2 == 0 ? run().string() : checkpoint(step).string()});
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << path << " " << offset << "\n" << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    EXPECT_NE(end.errors()[0].find(path.string() + ": "), std::string::npos) << end.output;
    if (name != "manifest.json") {
      EXPECT_NE(end.errors()[0].find("checksum of chunk 0"), std::string::npos) << end.output;
    }
    flip();
  }
  EXPECT_EQ(strake({"ckpt", "verify", run().string()}).exit_code, 0);
}

TEST_F(ReadCheckpoints, TheListIsAlsoForPrograms) {
  truncate(2);
  fs::rename(checkpoint(4), checkpoint(4).parent_path() / (".bad-" + checkpoint::step_name(4)));
  const ProgramEnd list = strake({"ckpt", "list", run().string(), "--json"});
  EXPECT_EQ(list.exit_code, 0) << list.output;
  const auto json = nlohmann::json::parse(list.output);
  ASSERT_EQ(json.at("checkpoints").size(), 2u) << list.output;
  const auto& newest = json["checkpoints"][0];
  EXPECT_EQ(newest.at("path"), checkpoint(6).string());
  EXPECT_EQ(newest.at("step"), 6);
  EXPECT_EQ(newest.at("tokens"), 6 * 4 * 16);
  EXPECT_EQ(newest.at("ranks"), 1);
  EXPECT_EQ(newest.at("bytes"), fs::file_size(checkpoint(6) / "rank-0000.h5"));
  EXPECT_EQ(newest.at("held_out_loss"), nullptr);
  EXPECT_TRUE(newest.at("written").get<std::string>().ends_with("Z"));
  EXPECT_EQ(newest.at("state"), "complete");
  EXPECT_EQ(newest.at("problem"), nullptr);
  EXPECT_EQ(json["checkpoints"][1].at("state"), "damaged");
  EXPECT_NE(json["checkpoints"][1].at("problem").get<std::string>().find("9000 bytes"), std::string::npos);
  EXPECT_EQ(json.at("set_aside")[0].at("step"), 4);
  fs::remove_all(checkpoint(2));
  const ProgramEnd verified = strake({"ckpt", "list", run().string(), "--json", "--verify"});
  EXPECT_EQ(nlohmann::json::parse(verified.output)["checkpoints"][0].at("state"), "whole");
}

// The weights that training has, as h5py finds them in a file of their own, from wherever it is opened.
TEST_F(ReadCheckpoints, AViewShowsEveryTensor) {
  const std::string kept = strake({"train", at("job.toml"), "run.dir=" + at("of-two")}, 2).output;
  const auto before = everything();
  for (const std::string& source : {run().string(), at("of-two")}) {
    fs::remove(at("view.h5"));
    const ProgramEnd end = strake({"ckpt", "view", source, "--out", at("view.h5")});
    ASSERT_EQ(end.exit_code, 0) << end.output << kept;
    const fs::path newest = launch::checkpoint_folder(source) / checkpoint::step_name(6);
    PosixFiles files;
    const checkpoint::FoundCheckpoint found{newest, checkpoint::read_manifest(files, newest)};
    checkpoint::TensorReader reader(files, found);
    std::ofstream script(at("look.py"));
    script << "import h5py, os\nos.chdir('/')\nview = h5py.File('" << at("view.h5") << "', 'r')\n";
    for (const checkpoint::TensorRecord& tensor : found.manifest.tensors) {
      std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.elems()) * size_bytes(tensor.dtype));
      reader.read(tensor, 0, bytes);
      std::string name = tensor.name;
      std::replace(name.begin(), name.end(), '/', '-');
      std::ofstream(at("expected-" + name), std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      script << "d = view['" << tensor.name << "']\nassert list(d.shape) == [";
      for (const std::int64_t extent : tensor.shape) script << extent << ",";
      script << "]\nassert d[()].tobytes() == open('" << at("expected-" + name) << "', 'rb').read(), '" << tensor.name
             << "'\n";
    }
    script << "assert view['param/h.0.attn.proj.weight'].attrs['orientation'] == 'in,out'\n"
           << "assert view['adam_m/h.0.mlp.fc.weight'].attrs['orientation'] == 'out,in'\n"
           << "assert list(view['param/h.0.attn.qkv.weight'].attrs['group_rows']) == [8, 8, 8]\n";
    script.close();
    EXPECT_EQ(std::system(("/usr/bin/python3 " + at("look.py")).c_str()), 0);
  }
  EXPECT_TRUE(everything() == before) << "a command that reads has changed the run folder";

  const auto refused = [&](const std::string& out, const char* says) {
    const ProgramEnd end = strake({"ckpt", "view", run().string(), "--out", out});
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
    EXPECT_NE(end.output.find(says), std::string::npos) << end.output;
  };
  refused(at("view.h5"), "view.h5 is there");
  refused((checkpoint(6) / "view.h5").string(), "is in a folder of checkpoints");
}

// A view is made of what is whole, as every other reader does.
TEST_F(ReadCheckpoints, AViewIsOfTheNewestWholeOne) {
  truncate(6);
  fs::remove(at("view.h5"));
  const ProgramEnd end = strake({"ckpt", "view", run().string(), "--out", at("view.h5")});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("takes that of step 4"), std::string::npos) << end.output;
  fs::remove(at("view.h5"));
  const ProgramEnd named = strake({"ckpt", "view", checkpoint(6).string(), "--out", at("view.h5")});
  EXPECT_EQ(named.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << named.output;
  EXPECT_FALSE(fs::exists(at("view.h5")));
}

TEST_F(ReadCheckpoints, ADiffSaysWhichTensorsAndSettingsDiffer) {
  const auto diff = [&](const fs::path& a, const fs::path& b) {
    return strake({"ckpt", "diff", a.string(), b.string()});
  };
  const auto before = everything();
  const ProgramEnd same = diff(run(), checkpoint(6));
  EXPECT_EQ(same.exit_code, 0) << same.output;
  EXPECT_NE(same.output.find(" tensors, equal bit for bit\n"), std::string::npos) << same.output;
  EXPECT_EQ(lines(same).size(), 3u) << same.output;

  const ProgramEnd other = diff(checkpoint(4), checkpoint(6));
  EXPECT_EQ(other.exit_code, 1) << other.output;
  EXPECT_NE(other.output.find("\nstep: 4 -> 6\n"), std::string::npos) << other.output;
  EXPECT_NE(other.output.find("\ntokens: 256 -> 384\n"), std::string::npos) << other.output;
  EXPECT_NE(other.output.find("\nparam/h.0.attn.qkv.weight: f32[48, 16], "), std::string::npos) << other.output;
  EXPECT_TRUE(other.errors().empty()) << other.output;
  EXPECT_TRUE(everything() == before) << "a command that reads has changed the run folder";

  // One bit of one element, its checksum made right: exactly that is found.
  PosixFiles files;
  checkpoint::Manifest manifest = checkpoint::read_manifest(files, checkpoint(6));
  const checkpoint::ShardRecord shard = manifest.find("adam_v/h.0.ln_1.weight")->shards.front();
  const fs::path path = checkpoint(6) / manifest.files[shard.file].name;
  std::string bytes = read_file(files, path, 1 << 26);
  bytes[shard.offset_bytes + 3 * 4 + 3] ^= static_cast<char>(0x80);  // the sign
  write_file_durably(files, path, bytes);
  ASSERT_EQ(manifest.files[shard.file].chunk_crcs.size(), 1u);
  manifest.files[shard.file].chunk_crcs = {crc32c(bytes_of(bytes))};
  write_file_durably(files, checkpoint(6) / checkpoint::kManifestName, checkpoint::serialize(manifest));
  const ProgramEnd one = diff(at("whole"), run());
  EXPECT_EQ(one.exit_code, 1) << one.output;
  ASSERT_EQ(lines(one).size(), 4u) << one.output;
  EXPECT_NE(lines(one)[2].find("adam_v/h.0.ln_1.weight: f32[16], 1 of 16 elements differ, at most by "),
            std::string::npos)
      << one.output;
  EXPECT_NE(lines(one)[2].find(", relative 2"), std::string::npos) << one.output;

  flip_byte(6);
  const ProgramEnd damaged = diff(at("whole"), run());
  EXPECT_EQ(damaged.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << damaged.output;
  EXPECT_NE(damaged.output.find("checksum of chunk 0"), std::string::npos) << damaged.output;
}

// The same state in the files of other ranks is the same state.
TEST_F(ReadCheckpoints, ADiffSeesNoRanks) {
  const auto train = [&](const std::string& name, int ranks, const std::vector<std::string>& more) {
    std::vector<std::string> words{"train", at("job.toml"), "run.dir=" + at(name)};
    words.insert(words.end(), more.begin(), more.end());
    const ProgramEnd end = strake(words, ranks);
    ASSERT_EQ(end.exit_code, 0) << end.output;
  };
  fs::remove_all(at("three"));
  fs::copy(run(), at("three"), fs::copy_options::recursive);
  // Nothing is trained: a stop behind the step that is there; what is kept is kept anew.
  fs::remove_all(launch::checkpoint_folder(at("three")) / checkpoint::step_name(6));
  fs::remove_all(at("pair"));
  fs::copy(at("three"), at("pair"), fs::copy_options::recursive);
  train("three", 2, {"train.shard=optimizer"});
  train("pair", 2, {"train.shard=none"});
  const ProgramEnd end = strake({"ckpt", "diff", at("three"), at("pair")});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("config.train.shard: \"optimizer\" -> \"none\""), std::string::npos) << end.output;
  EXPECT_NE(end.output.find("tensors, equal bit for bit"), std::string::npos) << end.output;
  const ProgramEnd ranks = strake({"ckpt", "diff", run().string(), at("pair")});
  EXPECT_NE(ranks.output.find("\nranks: 1 -> 2\n"), std::string::npos) << ranks.output;
}

TEST_F(ReadCheckpoints, PruneKeepsWhatItIsToldTo) {
  const auto steps = [&] {
    PosixFiles files;
    return checkpoint::committed_steps(files, launch::checkpoint_folder(run()));
  };
  const auto prune = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"ckpt", "prune", run().string()});
    return strake(words);
  };
  const auto before = everything();
  const ProgramEnd dry = prune({"--keep", "1", "--keep-every", "2", "--dry-run"});
  EXPECT_EQ(dry.exit_code, 0) << dry.output;
  EXPECT_NE(dry.output.find("0 of 3 would go, 0.0 MiB"), std::string::npos) << dry.output;
  const ProgramEnd said = prune({"--keep", "1", "--keep-every", "4", "--dry-run"});
  EXPECT_NE(said.output.find(checkpoint(6).string()), std::string::npos) << said.output;
  EXPECT_TRUE(lines(said)[0].ends_with("stays: one of the newest")) << said.output;
  EXPECT_TRUE(lines(said)[1].ends_with("stays: of --keep-every")) << said.output;
  EXPECT_TRUE(lines(said)[2].ends_with("  goes")) << said.output;
  EXPECT_NE(said.output.find("1 of 3 would go, "), std::string::npos) << said.output;
  EXPECT_TRUE(everything() == before) << "a dry run has changed the run folder";

  const ProgramEnd none = prune({"--keep", "1", "--keep-best", "1"});
  EXPECT_EQ(none.exit_code, static_cast<int>(ExitCode::kConfig)) << none.output;
  EXPECT_NE(none.output.find("keeps its held-out loss"), std::string::npos) << none.output;
  const ProgramEnd zero = prune({"--keep", "0"});
  EXPECT_EQ(zero.exit_code, static_cast<int>(ExitCode::kConfig)) << zero.output;
  {
    PosixFiles files;
    const checkpoint::FolderLock at_work(files, launch::checkpoint_folder(run()) / checkpoint::kLockName,
                                         [](std::string_view) {});
    const ProgramEnd locked = prune({"--keep", "1"});
    EXPECT_EQ(locked.exit_code, static_cast<int>(ExitCode::kConfig)) << locked.output;
    EXPECT_NE(locked.output.find("another run is at work"), std::string::npos) << locked.output;
  }
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{6, 4, 2}));

  EXPECT_EQ(prune({"--keep", "1", "--keep-every", "4"}).exit_code, 0);
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{6, 4}));
  truncate(6);
  EXPECT_EQ(prune({"--keep", "1"}).exit_code, 0);
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{6, 4})) << "the last whole one stays";
  EXPECT_EQ(strake({"train", at("job.toml"), "run.dir=" + run().string()}).exit_code, 0) << "and the run goes on";
}

}  // namespace
}  // namespace strake::test
