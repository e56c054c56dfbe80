#include "launch/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "runtime/base/error.h"

namespace strake::launch {
namespace {

// A file with this content, for one test.
class TomlFile {
 public:
  explicit TomlFile(const std::string& content)
      : path_(std::filesystem::temp_directory_path() / ("strake-config-" + std::to_string(::getpid()) + ".toml")) {
    std::ofstream(path_) << content;
  }
  ~TomlFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

const std::vector<std::string> kData{"data.train=t.bin", "data.val=v.bin"};

std::vector<std::string> with_data(std::vector<std::string> overrides) {
  overrides.insert(overrides.end(), kData.begin(), kData.end());
  return overrides;
}

std::string refusal(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  try {
    load_config(file, overrides);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kConfig);
    return error.what();
  }
  return "";
}

std::size_t lines(const std::string& text) {
  return text.empty() ? 0 : 1 + static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

// One mistake each, as an override: the report is one line that names the key and says what to do.
struct BadOverride {
  const char* overrides;  // separated by blanks
  const char* key;
  const char* remedy;
};

class BadOverrideTest : public ::testing::TestWithParam<BadOverride> {};

TEST_P(BadOverrideTest, IsReportedOnceWithKeyAndRemedy) {
  std::vector<std::string> overrides;
  std::istringstream in(GetParam().overrides);
  for (std::string word; in >> word;) overrides.push_back(word);
  const bool sets_data = std::string_view(GetParam().overrides).find("data.") != std::string_view::npos;
  const std::string report = refusal("", sets_data ? overrides : with_data(overrides));
  EXPECT_EQ(lines(report), 1u) << report;
  EXPECT_NE(report.find(GetParam().key), std::string::npos) << report;
  EXPECT_NE(report.find(GetParam().remedy), std::string::npos) << report;
}

INSTANTIATE_TEST_SUITE_P(
    Unknown, BadOverrideTest,
    ::testing::Values(BadOverride{"train.stpes=3", "train.stpes", "did you mean train.steps?"},
                      BadOverride{"steps=3", "steps", "did you mean train.steps?"},
                      BadOverride{"train.step=3", "train.step", "did you mean train.steps?"},
                      BadOverride{"train.batch=3", "train.batch", "[train] has train.steps"},
                      BadOverride{"trian.steps=3", "trian.steps", "did you mean train.steps?"},
                      BadOverride{"optim.beta1=0.9", "optim.beta1", "did you mean optimizer.beta1?"},
                      BadOverride{"comm.bucket_mb=25", "comm.bucket_mb", "did you mean comm.bucket_mib?"},
                      BadOverride{"checkpoint.evry=5", "checkpoint.evry", "did you mean checkpoint.every?"},
                      BadOverride{"Train.Steps=5", "Train.Steps", "did you mean train.steps?"},
                      BadOverride{"wandb.project=x", "wandb.project", "the sections are run, model"},
                      BadOverride{"steps", "\"steps\"", "write key=value"},
                      BadOverride{"=5", "\"=5\"", "write key=value"}));

INSTANTIATE_TEST_SUITE_P(
    WrongType, BadOverrideTest,
    ::testing::Values(BadOverride{"train.steps=many", "train.steps", "an integer from 1"},
                      BadOverride{"train.steps=10.5", "train.steps", "an integer from 1"},
                      BadOverride{"train.steps=1e3", "train.steps", "an integer from 1"},
                      BadOverride{"train.steps=10k", "train.steps", "an integer from 1"},
                      BadOverride{"train.steps=", "train.steps", "an integer from 1"},
                      BadOverride{"train.steps=99999999999999999999", "train.steps", "an integer from 1"},
                      BadOverride{"comm.overlap=yes", "comm.overlap", "true or false"},
                      BadOverride{"comm.overlap=1", "comm.overlap", "true or false"},
                      BadOverride{"train.deterministic=TRUE", "train.deterministic", "true or false"},
                      BadOverride{"comm.bucket_mib=big", "comm.bucket_mib", "a number from"},
                      BadOverride{"comm.bucket_mib=25MiB", "comm.bucket_mib", "a number from"},
                      BadOverride{"optimizer.learning_rate=nan", "optimizer.learning_rate", "a number from 0 to 10"},
                      BadOverride{"optimizer.clip_norm=inf", "optimizer.clip_norm", "a number from 0"},
                      BadOverride{"run.device=gpu", "run.device", "auto, cpu or cuda"},
                      BadOverride{"comm.buffers=pinned", "comm.buffers", "plain, registered or symmetric"},
                      BadOverride{"checkpoint.strategy=fast", "checkpoint.strategy",
                                  "auto, sync, pinned, lazy or device"},
                      BadOverride{"checkpoint.if_busy=fail", "checkpoint.if_busy", "wait or skip"},
                      BadOverride{"checkpoint.resume=maybe", "checkpoint.resume", "auto, true or false"}));

INSTANTIATE_TEST_SUITE_P(
    OutOfRange, BadOverrideTest,
    ::testing::Values(
        BadOverride{"train.steps=0", "train.steps", "from 1 to"},
        BadOverride{"train.steps=-5", "train.steps", "from 1 to"},
        BadOverride{"train.stop_at=-1", "train.stop_at", "from 0 to"},
        BadOverride{"train.global_batch=0", "train.global_batch", "from 1 to"},
        BadOverride{"train.micro_batch=0", "train.micro_batch", "from 1 to"},
        BadOverride{"train.sequence=0", "train.sequence", "from 1 to"},
        BadOverride{"run.seed=-1", "run.seed", "from 0 to"},
        BadOverride{"model.layers=0", "model.layers", "from 1 to 1000"},
        BadOverride{"model.heads=0", "model.heads", "from 1 to"},
        BadOverride{"model.vocab=-1", "model.vocab", "from 0 to"},
        BadOverride{"comm.bucket_mib=0", "comm.bucket_mib", "from 1e-06 to"},
        BadOverride{"comm.bucket_mib=-0.5", "comm.bucket_mib", "from 1e-06 to"},
        BadOverride{"comm.max_ctas=0", "comm.max_ctas", "from 1 to 64"},
        BadOverride{"comm.min_ctas=65", "comm.min_ctas", "from 1 to 64"},
        BadOverride{"comm.spare_sms=-1", "comm.spare_sms", "from 0 to"},
        BadOverride{"checkpoint.every=-1", "checkpoint.every", "from 0 to"},
        BadOverride{"checkpoint.keep=0", "checkpoint.keep", "from 1 to"},
        BadOverride{"checkpoint.keep_every=-1", "checkpoint.keep_every", "from 0 to"},
        BadOverride{"eval.batches=0", "eval.batches", "from 1 to"},
        BadOverride{"log.every=0", "log.every", "from 1 to"},
        BadOverride{"optimizer.beta1=1", "optimizer.beta1", "from 0 to 0.999999"},
        BadOverride{"optimizer.beta2=1.5", "optimizer.beta2", "from 0 to 0.999999"},
        BadOverride{"optimizer.epsilon=0", "optimizer.epsilon", "from 1e-30 to 1"},
        BadOverride{"optimizer.learning_rate=-1e-4", "optimizer.learning_rate", "from 0 to 10"},
        BadOverride{"optimizer.warmup_ratio=1", "optimizer.warmup_ratio", "auto, or a number from 0 to 0.999999"},
        BadOverride{"optimizer.warmup_steps=0.1", "optimizer.warmup_steps", "auto, or an integer from 0"},
        BadOverride{"optimizer.min_learning_rate_ratio=1.5", "optimizer.min_learning_rate_ratio", "from 0 to 1"},
        BadOverride{"debug.jitter_us=-1", "debug.jitter_us", "from 0 to"}));

INSTANTIATE_TEST_SUITE_P(
    Contradiction, BadOverrideTest,
    ::testing::Values(BadOverride{"model.channels=130 model.heads=4", "model.channels",
                                  "use model.heads = 1, 2, 5, 10, or model.channels = 132"},
                      BadOverride{"model.channels=64 model.heads=3", "model.channels",
                                  "use model.heads = 1, 2, 4, 8, or"},
                      BadOverride{"train.global_batch=20 train.micro_batch=8", "train.global_batch",
                                  "use 16 or 24, or train.micro_batch = 2, 4, 5, 10"},
                      BadOverride{"train.global_batch=4 train.micro_batch=8", "train.global_batch",
                                  "use 8, or train.micro_batch = 1, 2, 4"},
                      BadOverride{"checkpoint.keep_best=1", "checkpoint.keep_best", "needs held-out losses"},
                      BadOverride{"train.stop_at=2000", "train.stop_at", "lies behind train.steps = 1000"},
                      BadOverride{"optimizer.min_learning_rate=0.1", "optimizer.min_learning_rate",
                                  "or set it in proportion: optimizer.min_learning_rate_ratio = 0.1"},
                      BadOverride{"optimizer.min_learning_rate=1e-5 optimizer.min_learning_rate_ratio=0.1",
                                  "optimizer.min_learning_rate_ratio", "and so is optimizer.min_learning_rate; remove"},
                      BadOverride{"optimizer.warmup_steps=5 optimizer.warmup_ratio=0.1", "optimizer.warmup_ratio",
                                  "and so is optimizer.warmup_steps; remove"},
                      BadOverride{"checkpoint.every=5 checkpoint.every_minutes=2", "checkpoint.every_minutes",
                                  "and so is checkpoint.every; remove"},
                      BadOverride{"checkpoint.every=0 checkpoint.every_minutes=2", "checkpoint.every_minutes",
                                  "and so is checkpoint.every; remove"},
                      BadOverride{"model.kind=bert", "model.kind", "write \"gpt2\""},
                      BadOverride{"run.dir=", "run.dir", "write the path of a folder"},
                      BadOverride{"run.kernel_cache=", "run.kernel_cache", "write auto, none or the path of a folder"},
                      BadOverride{"data.train=t.bin,", "data.train", "a list of them"},
                      BadOverride{"data.train=t.bin data.dtype=u64", "data.dtype", "write auto, u16 or u32"},
                      BadOverride{"data.val=v.bin", "data.train", "made by `strake data prepare`"},
                      BadOverride{"data.train=t.bin eval.every=5", "eval.every", "set data.val, or eval.every = 0"}));

// One mistake each in a file: the line is named as well.
struct BadFile {
  const char* toml;
  const char* place;  // the line that the report must name
  const char* key;
  const char* remedy;
};

class BadFileTest : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadFileTest, IsReportedWithItsLine) {
  const TomlFile file(GetParam().toml);
  const std::string report = refusal(file.path(), kData);
  EXPECT_EQ(lines(report), 1u) << report;
  EXPECT_TRUE(report.starts_with(file.path().string() + GetParam().place)) << report;
  EXPECT_NE(report.find(GetParam().key), std::string::npos) << report;
  EXPECT_NE(report.find(GetParam().remedy), std::string::npos) << report;
}

INSTANTIATE_TEST_SUITE_P(
    Directed, BadFileTest,
    ::testing::Values(BadFile{"[train]\nsteps = \"many\"\n", ":2: ", "train.steps", "an integer from 1"},
                      BadFile{"[train]\nsteps = 10.0\n", ":2: ", "train.steps: 10", "an integer from 1"},
                      BadFile{"[train]\nsteps = true\n", ":2: ", "train.steps: true", "an integer from 1"},
                      BadFile{"[train]\nsteps = [1]\n", ":2: ", "train.steps", "a single value"},
                      BadFile{"[train]\nsteps = 1979-05-27\n", ":2: ", "train.steps", "a single value"},
                      BadFile{"[train.steps]\ncount = 5\n", ":1: ", "train.steps", "a single value"},
                      BadFile{"train = 5\n", ":1: ", "train: is a section", "write [train]"},
                      BadFile{"[comm]\noverlap = \"true\"\n", ":2: ", "comm.overlap", "true or false"},
                      BadFile{"[comm]\nbucket_mib = \"1\"\n", ":2: ", "comm.bucket_mib", "a number from"},
                      BadFile{"[comm]\nbucket_mib = nan\n", ":2: ", "comm.bucket_mib", "a number from"},
                      BadFile{"[run]\ndir = 5\n", ":2: ", "run.dir: 5", "a text in quotes"},
                      BadFile{"[run]\ndevice = \"gpu\"\n", ":2: ", "run.device", "auto, cpu or cuda"},
                      BadFile{"[checkpoint]\nresume = 1\n", ":2: ", "checkpoint.resume", "auto, true or false"},
                      BadFile{"\n\n[trian]\nsteps = 5\n", ":4: ", "trian.steps", "did you mean train.steps?"},
                      BadFile{"steps = 5\n", ":1: ", "steps", "did you mean train.steps?"},
                      BadFile{"[train]\nsteps = 5\nsteps = 6\n", ":3: ", "not valid TOML", "correct this line"},
                      BadFile{"[train\nsteps = 5\n", ":1: ", "not valid TOML", "correct this line"},
                      BadFile{"[train]\nsteps 5\n", ":2: ", "not valid TOML", "correct this line"},
                      BadFile{"[train]\nstop_at = 5000\n", ":2: ", "train.stop_at", "train.steps = 1000"}));

TEST(Config, ReportsAllMistakesTogether) {
  const TomlFile file("[train]\nsteps = 0\nstpes = 5\n[model]\nlayers = \"two\"\n");
  const std::string report = refusal(file.path(), {"comm.overlap=maybe", "data.train=t.bin", "eval.every=3"});
  EXPECT_EQ(lines(report), 5u) << report;
  for (const char* key : {"train.steps: 0", "train.stpes", "model.layers", "comm.overlap", "eval.every"}) {
    EXPECT_NE(report.find(key), std::string::npos) << key << " in " << report;
  }
}

// A refused value leaves the default; comparing that with another key would only confuse.
TEST(Config, DoesNotCompareKeysThatHaveAProblem) {
  const std::string report = refusal("", with_data({"train.steps=many", "train.stop_at=5000"}));
  EXPECT_EQ(lines(report), 1u) << report;
}

TEST(Config, AFileThatIsNotThereIsTheOnlyProblem) {
  const std::string report = refusal("/nonexistent/a.toml", {});
  EXPECT_EQ(lines(report), 1u) << report;
  EXPECT_TRUE(report.starts_with("/nonexistent/a.toml: cannot be read")) << report;
}

TEST(Config, ReadsTheFileThenTheOverrides) {
  const TomlFile file(
      "run.dir = \"r\"\nrun.seed = 7\n[train]\nsteps = 50\nglobal_batch = 32\n[comm]\nbucket_mib = 1\n"
      "[checkpoint]\nresume = true\n[optimizer]\nwarmup_steps = 0\n");
  const Config config =
      load_config(file.path(), with_data({"train.steps=60", "comm.bucket_mib=0.125", "run.device=cpu"}));
  EXPECT_EQ(config.run.dir, "r");
  EXPECT_EQ(config.run.seed, 7);
  EXPECT_EQ(config.run.device, DeviceChoice::kCpu);
  EXPECT_EQ(config.train.steps, 60);
  EXPECT_EQ(config.train.global_batch, 32);
  EXPECT_EQ(config.comm.bucket_mib, 0.125);
  EXPECT_EQ(config.checkpoint.resume, Resume::kMust);
  EXPECT_EQ(config.data.train, std::vector<std::string>{"t.bin"});
}

TEST(Config, DataMayBeSeveralFiles) {
  using List = std::vector<std::string>;
  const TomlFile file("[data]\ntrain = [\"a.bin\", \"b,c.bin\"]\nval = \"v-*.bin\"\ndtype = \"u32\"\n");
  const Config config = load_config(file.path(), {});
  EXPECT_EQ(config.data.train, (List{"a.bin", "b,c.bin"}));
  EXPECT_EQ(config.data.val, List{"v-*.bin"});
  EXPECT_EQ(config.data.dtype, data::TokenType::kU32);
  const Config overridden = load_config(file.path(), {"data.train=x.bin,y.bin", "data.val=", "data.dtype=auto"});
  EXPECT_EQ(overridden.data.train, (List{"x.bin", "y.bin"}));
  EXPECT_EQ(overridden.data.val, List{});
  EXPECT_FALSE(overridden.data.dtype.has_value());
  EXPECT_NE(config_to_json(overridden).find(R"("data": {"train": ["x.bin", "y.bin"], "val": "", "dtype": "auto"})"),
            std::string::npos)
      << config_to_json(overridden);
}

// No shell sees these.
TEST(Config, ExpandsTheHomeFolderInPaths) {
  ASSERT_EQ(::setenv("HOME", "/home/ada", 1), 0);
  const TomlFile file("run.dir = \"~/runs/a\"\n[data]\nval = \"~/v.bin\"\n");
  const Config config = load_config(file.path(), {"data.train=~/a.bin,./~/b.bin"});
  EXPECT_EQ(config.run.dir, "/home/ada/runs/a");
  EXPECT_EQ(config.data.train, (std::vector<std::string>{"/home/ada/a.bin", "./~/b.bin"}));
  EXPECT_EQ(config.data.val, std::vector<std::string>{"/home/ada/v.bin"});
}

TEST(Config, ResumeTakesTruthValuesAndWords) {
  for (const auto& [toml, expected] : {std::pair("true", Resume::kMust),
                                       {"false", Resume::kNever},
                                       {"\"auto\"", Resume::kAuto},
                                       {"\"true\"", Resume::kMust}}) {
    const TomlFile file(std::string("[checkpoint]\nresume = ") + toml + "\n");
    EXPECT_EQ(load_config(file.path(), kData).checkpoint.resume, expected) << toml;
  }
}

TEST(Config, TheDefaultsAreSound) {
  const Config config = load_config("", kData);
  EXPECT_EQ(config.train.stop_at, 0);
  EXPECT_EQ(config.checkpoint.every, std::nullopt);  // by time
  EXPECT_TRUE(config.comm.overlap);
}

TEST(Config, TheExamplesAreSound) {
  std::size_t examples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(STRAKE_SOURCE_FOLDER "/examples")) {
    if (entry.path().extension() != ".toml") continue;
    EXPECT_NO_THROW(derive(load_config(entry.path(), {}), 2)) << entry.path();
    ++examples;
  }
  EXPECT_GE(examples, 1u);
}

TEST(Config, JsonGivesTheSameConfigBack) {
  const Config config =
      load_config("", with_data({"run.dir=a \"b\"", "optimizer.learning_rate=0.1", "train.steps=123"}));
  const std::string json = config_to_json(config);
  EXPECT_NE(json.find(R"("run": {"dir": "a \"b\"")"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("learning_rate": 0.1)"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("steps": 123)"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("resume": "auto")"), std::string::npos) << json;
}

TEST(Config, SwitchesOfCommunicationThatContradictEachOther) {
  EXPECT_EQ(refusal("", with_data({"comm.min_ctas=9", "comm.max_ctas=8"})),
            "command line: comm.min_ctas: 9 is above comm.max_ctas = 8; lower it, or remove one of them");
  EXPECT_EQ(refusal("", with_data({"comm.min_ctas=8", "comm.max_ctas=8"})), "");
  for (const char* buffers : {"comm.buffers=plain", "comm.buffers=registered"}) {
    const std::string refused = refusal("", with_data({"comm.copy_engines=true", buffers}));
    EXPECT_NE(
        refused.find("comm.copy_engines: copy engines reach only memory that all GPUs map alike; set comm.buffers "
                     "= \"symmetric\" too"),
        std::string::npos)
        << refused;
  }
  EXPECT_EQ(refusal("", with_data({"comm.copy_engines=true", "comm.buffers=symmetric"})), "");
}

TEST(Config, TheHashFollowsWhatChangesResultsOnly) {
  const std::string hash = config_hash(load_config("", kData));
  EXPECT_EQ(hash.size(), 16u);
  for (const char* text :
       {"run.dir=x", "train.stop_at=5", "comm.overlap=false", "comm.bucket_mib=1", "checkpoint.every=3",
        "comm.min_ctas=2", "comm.max_ctas=8", "comm.buffers=symmetric", "checkpoint.resume=true",
        "run.kernel_cache=none", "log.every=1", "eval.every=7", "debug.jitter_us=9"}) {
    EXPECT_EQ(config_hash(load_config("", with_data({text}))), hash) << text;
  }
  for (const char* text :
       {"run.seed=2", "train.steps=999", "train.global_batch=32", "train.micro_batch=4", "train.sequence=64",
        "model.layers=2", "optimizer.beta2=0.99", "optimizer.clip_norm=0", "comm.spare_sms=8"}) {
    EXPECT_NE(config_hash(load_config("", with_data({text}))), hash) << text;
  }
}

TEST(Derive, DividesTheGlobalBatch) {
  Config config;
  config.train.global_batch = 48;
  config.train.micro_batch = 4;
  config.train.sequence = 10;
  const Derived derived = derive(config, 3);
  EXPECT_EQ(derived.accumulation, 4);
  EXPECT_EQ(derived.sequences_per_rank, 16);
  EXPECT_EQ(derived.tokens_per_step, 480);
}

Derived schedule_of(const std::vector<std::string>& overrides, const std::string& file = "") {
  const TomlFile toml(file);
  return derive(load_config(toml.path(), with_data(overrides)), 1);
}

TEST(Derive, TheFloorIsATenthOfThePeakUnlessItIsGiven) {
  EXPECT_DOUBLE_EQ(schedule_of({}).min_learning_rate, 6e-5);
  EXPECT_DOUBLE_EQ(schedule_of({"optimizer.learning_rate=1e-5"}).min_learning_rate, 1e-6);
  EXPECT_EQ(schedule_of({"optimizer.min_learning_rate=2e-5"}).min_learning_rate, 2e-5);
  EXPECT_EQ(schedule_of({"optimizer.min_learning_rate=0"}).min_learning_rate, 0);
  EXPECT_EQ(schedule_of({"optimizer.learning_rate=0.5", "optimizer.min_learning_rate_ratio=0.25"}).min_learning_rate,
            0.125);
  EXPECT_EQ(schedule_of({"optimizer.learning_rate=0.5", "optimizer.min_learning_rate_ratio=1"}).min_learning_rate, 0.5);
}

TEST(Derive, TheWarmUpIsStepsOrAPartOfTheRun) {
  EXPECT_EQ(schedule_of({}).warmup_steps, 100);
  EXPECT_EQ(schedule_of({"train.steps=100000"}).warmup_steps, 100);
  EXPECT_EQ(schedule_of({"optimizer.warmup_steps=0"}).warmup_steps, 0);
  EXPECT_EQ(schedule_of({"optimizer.warmup_ratio=0.02"}).warmup_steps, 20);
  EXPECT_EQ(schedule_of({"optimizer.warmup_ratio=0"}).warmup_steps, 0);
  EXPECT_EQ(schedule_of({"optimizer.warmup_ratio=0.25", "train.steps=10"}).warmup_steps, 3) << "rounded";
  EXPECT_EQ(schedule_of({"optimizer.warmup_ratio=0.999999", "train.steps=10"}).note, "");
}

TEST(Derive, AWarmUpThatIsLongerThanTheRunIsShortenedAndSaidSo) {
  EXPECT_EQ(schedule_of({"train.steps=100", "optimizer.warmup_steps=100"}).warmup_steps, 100);
  EXPECT_EQ(schedule_of({"train.steps=100", "optimizer.warmup_steps=100"}).note, "");
  EXPECT_EQ(schedule_of({"train.steps=99", "optimizer.warmup_steps=100"}).warmup_steps, 10);
  EXPECT_EQ(schedule_of({"train.steps=1", "optimizer.warmup_steps=100"}).warmup_steps, 1);
  const Derived three = schedule_of({"train.steps=3", "optimizer.warmup_steps=2000"});
  EXPECT_EQ(three.warmup_steps, 1);
  EXPECT_EQ(three.note, "the warm-up takes 1 of 3 steps: optimizer.warmup_steps = 2000 is longer than the run");
}

// 100 steps of 101 would be a run that hardly trains at its rate.
TEST(Derive, TheDefaultWarmUpIsATenthOfTheRunAtMost) {
  EXPECT_EQ(schedule_of({"train.steps=1000"}).note, "");
  EXPECT_EQ(schedule_of({"train.steps=500"}).warmup_steps, 50);
  EXPECT_EQ(schedule_of({"train.steps=100"}).warmup_steps, 10);
  EXPECT_EQ(schedule_of({"train.steps=1"}).warmup_steps, 1);
  const Derived shortened = schedule_of({"train.steps=101"});
  EXPECT_EQ(shortened.warmup_steps, 11);
  EXPECT_EQ(shortened.note,
            "the warm-up takes 11 of 101 steps, a tenth: the default of 100 is longer; optimizer.warmup_steps sets "
            "another");
}

TEST(Config, AnArgumentReplacesHowTheFileSpacesCheckpoints) {
  const TomlFile minutes("[checkpoint]\nevery_minutes = 2\n");
  EXPECT_EQ(load_config(minutes.path(), with_data({"checkpoint.every=7"})).checkpoint.every, 7);
  EXPECT_EQ(load_config(minutes.path(), with_data({"checkpoint.every=auto"})).checkpoint.every_minutes, 2);
  const TomlFile steps("[checkpoint]\nevery = 7\n");
  const Config by_time = load_config(steps.path(), with_data({"checkpoint.every_minutes=2"}));
  EXPECT_EQ(by_time.checkpoint.every, std::nullopt);
  EXPECT_EQ(by_time.checkpoint.every_minutes, 2);
  EXPECT_EQ(load_config(steps.path(), kData).checkpoint.every, 7) << "the default of the minutes contradicts nothing";
}

// Without this a user would have to edit the file before an argument could say it the other way.
TEST(Derive, AnArgumentReplacesWhatTheFileSaysInTheOtherWay) {
  const std::string steps = "[optimizer]\nwarmup_steps = 50\nmin_learning_rate = 1e-4\n";
  EXPECT_EQ(schedule_of({"optimizer.warmup_ratio=0.3"}, steps).warmup_steps, 300);
  EXPECT_DOUBLE_EQ(schedule_of({"optimizer.min_learning_rate_ratio=0.5"}, steps).min_learning_rate, 3e-4);
  const std::string ratios = "[optimizer]\nwarmup_ratio = 0.5\nmin_learning_rate_ratio = 0.5\n";
  EXPECT_EQ(schedule_of({}, ratios).warmup_steps, 500);
  EXPECT_EQ(schedule_of({"optimizer.warmup_steps=7"}, ratios).warmup_steps, 7);
  EXPECT_EQ(schedule_of({"optimizer.min_learning_rate=1e-6"}, ratios).min_learning_rate, 1e-6);
  EXPECT_EQ(schedule_of({"optimizer.warmup_ratio=auto"}, ratios).warmup_steps, 100);
  const TomlFile both(steps + "warmup_ratio = 0.1\n");
  EXPECT_NE(refusal(both.path(), kData).find(":4: optimizer.warmup_ratio: is set, and so is optimizer.warmup_steps"),
            std::string::npos);
}

TEST(Derive, SaysWhichValuesWouldDo) {
  Config config;
  config.train.global_batch = 24;
  config.train.micro_batch = 8;
  try {
    derive(config, 2);
    FAIL() << "24 sequences cannot be cut into pieces of 2 x 8";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "train.global_batch: 24 is not a multiple of train.micro_batch x ranks = 8 x 2 = 16; "
                 "use train.global_batch = 16 or 32, or train.micro_batch = 3, 4, 6, 12");
  }
  try {
    derive(config, 7);
    FAIL() << "24 sequences cannot be given to 7 ranks";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "train.global_batch: 24 is not a multiple of train.micro_batch x ranks = 8 x 7 = 56; "
                 "use train.global_batch = 56");
  }
}

TEST(Derive, EveryValueItNamesWouldDo) {
  for (std::int64_t micro : {1, 2, 3, 4, 6, 12}) {
    Config config;
    config.train.global_batch = 24;
    config.train.micro_batch = micro;
    EXPECT_EQ(derive(config, 2).accumulation * micro * 2, 24);
  }
}

}  // namespace
}  // namespace strake::launch
