// What users, files and disks can do wrong: one clear report that names what and where and what to do, the documented
// exit code, no rank left hanging, and the last good checkpoint as it was. Each input meets the program alone and under
// mpirun.

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/manifest.h"
#include "data/sample_order.h"
#include "runtime/base/error.h"
#include "runtime/base/host_name.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

constexpr int kAlone = 0, kTwoRanks = 2;
constexpr std::int64_t kHeaderBytes = 1024, kTokenBytes = 2;

// Exactly one report, and it says all of this.
void expect_one_report(const ProgramEnd& end, ExitCode code, const std::vector<std::string>& parts) {
  EXPECT_FALSE(end.hung);
  EXPECT_EQ(end.exit_code, static_cast<int>(code)) << end.output;
  const std::vector<std::string> errors = end.errors();
  ASSERT_EQ(errors.size(), 1u) << end.output;
  for (const std::string& part : parts)
    EXPECT_NE(errors[0].find(part), std::string::npos) << "no '" << part << "' in: " << errors[0];
}

void overwrite(const std::filesystem::path& path, std::int64_t offset_bytes, std::string_view bytes) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(offset_bytes);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(file.flush().good()) << path;
}

class BadInput : public testing::TestWithParam<int> {
 protected:
  int ranks() const { return GetParam(); }
  bool alone() const { return ranks() == kAlone; }
  ProgramEnd train(const std::vector<std::string>& overrides) { return job_.train(ranks(), "run", overrides); }

  // A run of three steps with its checkpoint.
  void start() {
    const ProgramEnd end = train({"train.stop_at=3"});
    ASSERT_EQ(end.exit_code, 0) << end.output;
  }
  // The run goes on from where it can and ends.
  void expect_goes_on(std::int64_t from_step) {
    const ProgramEnd end = train({"checkpoint.resume=true"});
    EXPECT_EQ(end.exit_code, 0) << end.output;
    EXPECT_NE(end.output.find("resumed behind step " + std::to_string(from_step)), std::string::npos) << end.output;
    EXPECT_EQ(job_.steps_done("run"), ProgramJob::kSteps);
  }

  ProgramJob job_;
};

TEST_P(BadInput, UnknownKey) {
  expect_one_report(train({"trian.steps=4"}), ExitCode::kConfig, {"trian.steps", "train.steps"});
}

TEST_P(BadInput, UnknownKeyInTheFile) {
  std::ofstream(job_.config_path(), std::ios::app) << "evry = 2\n";  // the file ends in [eval]
  expect_one_report(train({}), ExitCode::kConfig, {"job.toml:", "eval.evry", "eval.every"});
}

TEST_P(BadInput, ContradictoryKeys) {
  expect_one_report(train({"train.micro_batch=5"}), ExitCode::kConfig,
                    {"train.global_batch", "train.micro_batch", "use"});
}

TEST_P(BadInput, KeysThatContradictTheNumberOfRanks) {
  const ProgramEnd end = train({"train.global_batch=3", "train.stop_at=1"});
  if (alone()) {
    EXPECT_EQ(end.exit_code, 0) << end.output;
  } else {
    expect_one_report(end, ExitCode::kConfig, {"train.global_batch", "ranks", "use"});
  }
}

// The operating system would grant it, and end some process when it is touched.
TEST_P(BadInput, MoreMemoryThanTheMachineHas) {
  std::vector<std::string> parts{"out of memory",     "GiB are available", "optimizer state", "activations",
                                 "train.micro_batch", "model.layers",      "model.channels"};
  if (!alone()) parts.push_back("2 ranks on host");
  expect_one_report(train({"model.layers=300", "model.channels=16384"}), ExitCode::kConfig, parts);
}

TEST_P(BadInput, MissingTokenFile) {
  expect_one_report(train({"data.train=/nowhere/train.bin"}), ExitCode::kData, {"/nowhere/train.bin", "prepare"});
}

TEST_P(BadInput, TruncatedTokenFile) {
  std::filesystem::resize_file(job_.job().train_tokens(), 5000);
  expect_one_report(train({}), ExitCode::kData, {job_.job().train_tokens().string(), "truncated", "prepare"});
}

TEST_P(BadInput, VocabularySmallerThanTheFiles) {
  expect_one_report(train({"model.vocab=50"}), ExitCode::kConfig, {"model.vocab", "50", "60"});
}

// Met in the middle of the run, by the rank whose sample it is.
TEST_P(BadInput, TokenBeyondTheVocabulary) {
  constexpr std::int64_t kSequence = 16, kBadStep = 5, kSample = kBadStep * ProgramJob::kGlobalBatch + 7;
  const data::SampleOrder order = data::SampleOrder::shuffled(1, (6000 - 1) / kSequence);
  const std::int64_t token = order.sequence_of(kSample) * kSequence + 5;
  const std::filesystem::path tokens = job_.job().train_tokens();
  std::filesystem::copy_file(tokens, tokens.string() + ".good");
  overwrite(tokens, kHeaderBytes + token * kTokenBytes, std::string_view("\xe7\x03", 2));  // 999
  std::vector<std::string> parts{tokens.string(), std::to_string(token), "999", "60"};
  if (!alone()) parts.push_back("rank 1: ");  // the second half of a step's samples
  expect_one_report(train({}), ExitCode::kData, parts);

  std::filesystem::rename(tokens.string() + ".good", tokens);
  expect_goes_on(3);
}

// Fewer steps than the warm-up, and a lower rate than the default's floor, are no mistakes: the run says what it makes
// of them, and its manifest keeps it.
TEST_P(BadInput, AShortRunShortensItsWarmUp) {
  std::ofstream(job_.config_path(), std::ios::app) << "[log]\nevery = 1\n";
  const ProgramEnd end = train({"train.steps=3", "optimizer.warmup_steps=auto", "optimizer.min_learning_rate=auto",
                                "optimizer.learning_rate=1e-5", "eval.every=0"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("the warm-up takes 1 of 3 steps, a tenth: the default of 100 is longer"), std::string::npos)
      << end.output;
  PosixFiles files;
  const auto choices =
      nlohmann::json::parse(read_file(files, job_.run_folder("run") / "manifest.json", 1 << 20))["choices"];
  EXPECT_EQ(choices["warmup_steps"], 1);
  EXPECT_DOUBLE_EQ(choices["min_learning_rate"], 1e-6);
  const launch::Metrics metrics = job_.metrics("run");
  ASSERT_EQ(metrics.steps.size(), 3u);
  EXPECT_EQ(metrics.steps[0].learning_rate, 1e-5);
  EXPECT_LT(metrics.steps[2].learning_rate, 1e-5);
  EXPECT_GT(metrics.steps[2].learning_rate, 1e-6);
}

// Only an evaluation would meet it: found before the first step, not behind the last one.
TEST_P(BadInput, HeldOutTokenBeyondTheVocabulary) {
  const std::filesystem::path tokens = job_.job().val_tokens();
  constexpr std::int64_t kToken = 3 * 16 + 5;  // 3 sequences a rank: the second rank's part, if there is one
  overwrite(tokens, kHeaderBytes + kToken * kTokenBytes, std::string_view("\x2c\x01", 2));  // 300
  std::vector<std::string> parts{tokens.string(), "token 53 ", "id 300", "60"};
  if (!alone()) parts.push_back("rank 1: ");
  expect_one_report(train({"eval.every=0"}), ExitCode::kData, parts);
  EXPECT_FALSE(std::filesystem::exists(job_.run_folder("run")));
}

TEST_P(BadInput, HeldOutVocabularyLargerThanTheModels) {
  const std::filesystem::path sidecar = job_.job().val_tokens().string() + ".json";
  PosixFiles files;
  std::string text = read_file(files, sidecar, 1 << 16);
  text.replace(text.find("\"vocab_size\": 60"), 16, "\"vocab_size\": 61");
  write_file_durably(files, sidecar, text);
  expect_one_report(train({"eval.every=0"}), ExitCode::kConfig,
                    {"model.vocab = 60", "val.bin (61, data.val)", "raise it"});
}

TEST_P(BadInput, TooFewHeldOutTokens) {
  write_tokens(job_.job().val_tokens(), 3 * 16 * std::max(ranks(), 1), 3);
  expect_one_report(train({"eval.every=0"}), ExitCode::kData,
                    {"data.val", "val.bin", "too few for one batch of each rank"});
}

TEST_P(BadInput, TextForTokens) {
  const std::string text = (job_.folder() / "x.txt").string(), stem = text.substr(0, text.size() - 4);
  std::ofstream file(text);
  for (int i = 0; i < 3000; ++i) file << "In the beginning God created the heaven and the earth.\n";
  file.close();
  for (const char* key : {"data.train=", "data.val="}) {
    expect_one_report(train({key + text, "model.vocab=60", "data.dtype=u16"}), ExitCode::kData,
                      {text, "found text",
                       "`strake data prepare " + text + " --train " + stem + ".train.bin --val " + stem + ".val.bin`"});
  }
  EXPECT_EQ(
      StrakeProgram::run(kAlone, {"data", "prepare", text, "--train", stem + ".train.bin", "--val", stem + ".val.bin"},
                         job_.folder())
          .exit_code,
      0);
}

TEST_P(BadInput, ProgramForTokens) {
  expect_one_report(train({"data.train=/bin/ls", "model.vocab=60", "data.dtype=u16"}), ExitCode::kData,
                    {"/bin/ls", "found a program", "strake data prepare"});
}

TEST_P(BadInput, BareIdsOfUnknownType) {
  const std::string raw = (job_.folder() / "raw.bin").string();
  std::ofstream file(raw, std::ios::binary);
  for (int i = 0; i < 6000; ++i) file.put(static_cast<char>(i * 7 % 60)).put('\0');
  file.close();
  expect_one_report(train({"data.train=" + raw, "model.vocab=60"}), ExitCode::kConfig,
                    {raw, "set data.dtype = u16 or u32"});
  const ProgramEnd end = train({"data.train=" + raw, "model.vocab=60", "data.dtype=u16", "train.stop_at=1"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
}

TEST_P(BadInput, PatternThatMatchesNoFile) {
  expect_one_report(train({"data.train=" + (job_.folder() / "shard-*.bin").string()}), ExitCode::kData,
                    {"shard-*.bin", "no file has such a name"});
}

TEST_P(BadInput, CheckpointOfAnotherShape) {
  start();
  expect_one_report(train({"model.channels=32"}), ExitCode::kIncompatibleCheckpoint, {"step-00000003", "channels"});
  expect_one_report(train({"model.layers=3"}), ExitCode::kIncompatibleCheckpoint, {"step-00000003", "layers"});
  expect_goes_on(3);
}

// Said in the keys that people set.
TEST_P(BadInput, CheckpointOfAnotherModel) {
  const std::vector<std::string> llama{"model.kind=llama", "model.kv_heads=1", "model.rope_theta=5000"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), llama.begin(), llama.end());
    return more;
  };
  ASSERT_EQ(train(with({"train.stop_at=3"})).exit_code, 0);
  expect_one_report(train(with({"model.rope_theta=6000", "train.sequence=8"})), ExitCode::kIncompatibleCheckpoint,
                    {"step-00000003: is of another model: train.sequence is 16, ours 8; model.rope_theta is 5000, ours "
                     "6000; set train.sequence=16 model.rope_theta=5000, or choose another run.dir"});
  expect_one_report(train(with({"model.kind=qwen2", "model.norm_epsilon=1e-5"})), ExitCode::kIncompatibleCheckpoint,
                    {"model.kind is llama, ours qwen2; set model.kind=llama, or"});
  expect_one_report(train({}), ExitCode::kIncompatibleCheckpoint,
                    {"model.kind is llama, ours gpt2; ", " set model.kind=llama ", " model.rope_theta=5000"});
  const ProgramEnd end = train(with({"checkpoint.resume=true"}));
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_EQ(job_.steps_done("run"), ProgramJob::kSteps);
}

TEST_P(BadInput, DamagedCheckpoint) {
  start();
  EXPECT_EQ(train({"train.stop_at=6"}).exit_code, 0);
  // One byte of the newest: the one before it is taken, and the run says so.
  overwrite(job_.checkpoint("run", 6) / "rank-0000.h5", 20'000, "x");
  const ProgramEnd fallback = train({"train.stop_at=6"});
  EXPECT_EQ(fallback.exit_code, 0) << fallback.output;
  EXPECT_NE(fallback.output.find("rank-0000.h5"), std::string::npos) << fallback.output;
  EXPECT_NE(fallback.output.find("resumed behind step 3"), std::string::npos) << fallback.output;
  EXPECT_TRUE(fallback.errors().empty()) << fallback.output;

  // All of them: nothing to go on from, and starting over is not for the program to decide.
  overwrite(job_.checkpoint("run", 6) / "manifest.json", 40, "x");
  std::filesystem::resize_file(job_.checkpoint("run", 3) / "rank-0000.h5", 30'000);
  expect_one_report(train({}), ExitCode::kNoCheckpoint, {"no valid checkpoint", job_.run_folder("run").string()});
}

TEST_P(BadInput, OtherTokens) {
  start();
  write_tokens(job_.job().train_tokens(), 6'000, 99);
  expect_one_report(train({}), ExitCode::kData, {"train.bin"});
}

// Where no rank has a GPU a new run computes on the CPU, but one that GPUs have computed so far does not do so unasked.
TEST_P(BadInput, ACheckpointOfGpusIsNotLeftToTheCpu) {
  start();
  PosixFiles files;
  const std::filesystem::path checkpoint = job_.checkpoint("run", 3);
  checkpoint::Manifest manifest = checkpoint::read_manifest(files, checkpoint);
  for (const char* choices : {R"({"device": "cuda"})", R"({"kernels": {}})"}) {
    manifest.meta.choices = choices;
    write_file_durably(files, checkpoint / checkpoint::kManifestName, checkpoint::serialize(manifest));
    expect_one_report(train({}), ExitCode::kConfig,
                      {"host " + host_name() + " has no GPU to compute on", "step-00000003 was computed on GPUs",
                       "set run.device = cpu"});
  }
  const ProgramEnd wanted = train({"run.device=cpu", "train.stop_at=6"});
  EXPECT_EQ(wanted.exit_code, 0) << wanted.output;
  expect_goes_on(6);  // from a checkpoint of the CPU: nothing to ask any more
}

TEST_P(BadInput, LossThatIsNotFinite) {
  start();
  // Weight decay alone multiplies the weights by 1 - 10 * 10 at each step.
  const ProgramEnd end = train({"optimizer.learning_rate=10", "optimizer.warmup_steps=0", "optimizer.weight_decay=10",
                                "train.steps=2000", "checkpoint.every=0", "eval.every=0"});
  expect_one_report(end, ExitCode::kNonFinite, {"step", "optimizer.learning_rate"});
  expect_goes_on(3);
}

// Puts this process into namespaces of its own, where it may mount though it is not root. False: the system lets nobody
// have them.
bool enter_own_namespaces() {
  const uid_t user = ::getuid();
  const gid_t group = ::getgid();
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  std::ofstream("/proc/self/setgroups") << "deny";
  std::ofstream("/proc/self/uid_map") << user << ' ' << user << " 1";
  std::ofstream("/proc/self/gid_map") << group << ' ' << group << " 1";
  return true;
}

// A tmpfs that holds one checkpoint and not two.
class FullDisk : public BadInput {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(job_.run_folder("run"));
    const auto mount = [&] {
      mounted_ = ::mount("none", job_.run_folder("run").c_str(), "tmpfs", 0, "size=320k") == 0;
      return mounted_;
    };
    if (mount() || (enter_own_namespaces() && mount())) return;
    GTEST_SKIP() << "cannot mount a tmpfs here: " << std::strerror(errno);
  }
  void TearDown() override {
    if (mounted_) ::umount2(job_.run_folder("run").c_str(), MNT_DETACH);
  }
  bool mounted_ = false;
};

TEST_P(FullDisk, EndsTheRunAndKeepsTheLastCheckpoint) {
  expect_one_report(train({}), ExitCode::kStorage, {job_.run_folder("run").string(), "No space left", "free"});
  PosixFiles files;
  EXPECT_EQ(checkpoint::committed_steps(files, launch::checkpoint_folder(job_.run_folder("run"))),
            std::vector<std::int64_t>{3});
  EXPECT_NO_THROW(checkpoint::verify_checkpoint(files, job_.checkpoint("run", 3)));

  ASSERT_EQ(0, ::mount("none", job_.run_folder("run").c_str(), "tmpfs", MS_REMOUNT, "size=20m"));
  expect_goes_on(3);
}

// Where nothing may be mounted: the second checkpoint's file hits the largest size that the process may write.
TEST(FullDiskAlone, FailedWritesEndTheRunAndKeepTheLastCheckpoint) {
  ProgramJob job;
  EXPECT_EQ(job.train(kAlone, "run", {"train.stop_at=3"}).exit_code, 0);
  expect_one_report(job.train(kAlone, "run", {}, {.file_bytes = 100'000}), ExitCode::kStorage,
                    {"rank-0000.h5", "File too large"});
  PosixFiles files;
  EXPECT_EQ(checkpoint::committed_steps(files, launch::checkpoint_folder(job.run_folder("run"))),
            std::vector<std::int64_t>{3});
  EXPECT_EQ(job.train(kAlone, "run").exit_code, 0);
  EXPECT_EQ(job.steps_done("run"), ProgramJob::kSteps);
}

// What srun without PMIx makes: processes that are several by the launcher's word and one by MPI's.
class LostRanks : public testing::Test {
 protected:
  void set(const char* name, const char* value) {
    ::setenv(name, value, 1);
    names_.push_back(name);
  }
  ~LostRanks() override {
    for (const char* name : names_) ::unsetenv(name);
  }
  std::vector<const char*> names_;
  ProgramJob job_;
};

TEST_F(LostRanks, AreAnErrorOfTrainAndBenchOnly) {
  set("SLURM_PROCID", "1");
  set("SLURM_STEP_ID", "0");
  set("SLURM_STEP_NUM_TASKS", "2");
  expect_one_report(job_.train(kAlone, "run"), ExitCode::kConfig, {"srun started 2", "srun --mpi=pmix -n 2"});
  EXPECT_FALSE(std::filesystem::exists(job_.run_folder("run"))) << "nothing was begun";
  expect_one_report(StrakeProgram::run(kAlone, {"bench", "step", job_.config_path()}, job_.folder()), ExitCode::kConfig,
                    {"srun started 2"});
  EXPECT_EQ(StrakeProgram::run(kAlone, {"info"}, job_.folder()).exit_code, 0);
  // The world of an mpirun within the step is whole.
  const ProgramEnd whole = job_.train(kTwoRanks, "run", {"train.stop_at=1"});
  EXPECT_EQ(whole.exit_code, 0) << whole.output;
}

TEST_F(LostRanks, OfAnMpirunOfAnotherLibraryAreAnError) {
  set("OMPI_COMM_WORLD_RANK", "0");
  set("OMPI_COMM_WORLD_SIZE", "2");
  expect_one_report(job_.train(kAlone, "run"), ExitCode::kConfig, {"mpirun started 2", "use that one's mpirun"});
}

std::string name_of_ranks(const testing::TestParamInfo<int>& ranks) {
  return ranks.param == kAlone ? "Alone" : "TwoRanks";
}
INSTANTIATE_TEST_SUITE_P(Program, BadInput, testing::Values(kAlone, kTwoRanks), name_of_ranks);
INSTANTIATE_TEST_SUITE_P(Program, FullDisk, testing::Values(kAlone, kTwoRanks), name_of_ranks);

}  // namespace
}  // namespace strake::test
