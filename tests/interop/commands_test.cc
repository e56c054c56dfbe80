// `strake import` and `strake export` as a person meets them: whole programs, files in, files out.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/directory.h"
#include "checkpoint/reader.h"
#include "launch/commands/host_weights.h"
#include "launch/run/metrics.h"
#include "launch/run/run_folder.h"
#include "models/formats/counted_storage.h"
#include "models/parameters/owned_ranges.h"
#include "runtime/base/error.h"
#include "runtime/device/host_memory.h"
#include "tests/integration/strake_program.h"
#include "tests/interop/tiny_model.h"

namespace strake::test {
namespace {

namespace fs = std::filesystem;
constexpr int kAlone = 0;

class InteropCommands : public testing::Test {
 protected:
  explicit InteropCommands(const std::string& model = "gpt2") : tiny_(model) {}
  ProgramEnd strake(std::vector<std::string> arguments, int ranks = kAlone) {
    return StrakeProgram::run(ranks, std::move(arguments), tiny_.path("."));
  }
  ProgramEnd import(const std::string& source, const std::string& run, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"import", path(source), "--run", path(run)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strake(std::move(arguments));
  }
  ProgramEnd train(const std::string& run, int ranks, std::vector<std::string> more = {}) {
    std::ofstream(tiny_.path("job.toml"))
        << "[model]\nlayers = 2\nchannels = 12\nheads = 3\nvocab = 19\n[data]\ntrain = \"" << path("train.bin")
        << "\"\n[train]\nsteps = 6\nglobal_batch = 4\nmicro_batch = 1\nsequence = 5\n"
        << "[optimizer]\nlearning_rate = 1e-2\nmin_learning_rate = 1e-2\nwarmup_steps = 0\n"
        << "[checkpoint]\nevery = 3\nkeep = 10\n[run]\ndevice = \"cpu\"\n";
    std::vector<std::string> arguments{"train", path("job.toml"), "run.dir=" + path(run)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strake(std::move(arguments), ranks);
  }
  void expect_error(const ProgramEnd& end, ExitCode code, const std::string& part) {
    EXPECT_EQ(end.exit_code, static_cast<int>(code)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    EXPECT_NE(end.errors()[0].find(part), std::string::npos) << end.output;
  }

  std::string path(const std::string& name) const { return tiny_.path(name).string(); }
  std::string content(const std::string& name) { return read_file(tiny_.files(), tiny_.path(name), 1 << 24); }
  void put(const std::string& name, const std::string& text) {
    fs::create_directories(tiny_.path(name).parent_path());
    std::ofstream(tiny_.path(name), std::ios::binary) << text;
  }
  double first_loss(const std::string& run) {
    return launch::read_metrics(tiny_.files(), launch::metrics_path(tiny_.path(run))).steps.at(0).loss;
  }
  // The weights of a run as bytes.
  std::string exported(const std::string& run) {
    EXPECT_EQ(strake({"export", path(run), "--out", path(run + "-out")}).exit_code, 0);
    return content(run + "-out/model.safetensors");
  }

  TinyModel tiny_;
};

TEST_F(InteropCommands, ExportGivesTheImportedFileBack) {
  for (const char* source : {"hf", "bare", "hf/model.safetensors"}) {
    const std::string run =
        std::string("run-") + (std::string(source) == "bare" ? "bare" : std::to_string(std::string(source).size()));
    const ProgramEnd end = import(source, run);
    ASSERT_EQ(end.exit_code, 0) << end.output;
    EXPECT_TRUE(exported(run) == content("hf/model.safetensors")) << source;
  }
  // What was exported can be imported, its config too; a single checkpoint can be named.
  ASSERT_EQ(import("run-2-out", "again").exit_code, 0);
  const ProgramEnd end = strake({"export", path("again/ckpt/step-00000000"), "--out", path("again-out")});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_TRUE(content("again-out/model.safetensors") == content("hf/model.safetensors"));
  EXPECT_EQ(content("again-out/config.json"), content("run-2-out/config.json"));
}

TEST_F(InteropCommands, HalfSizedExportIsTheRoundedWeights) {
  ASSERT_EQ(import("hf", "run").exit_code, 0);
  ASSERT_EQ(strake({"export", path("run"), "--out", path("half"), "--dtype", "bf16"}).exit_code, 0);
  const auto whole = checkpoint::Safetensors::open(tiny_.files(), tiny_.path("hf"));
  const auto half = checkpoint::Safetensors::open(tiny_.files(), tiny_.path("half"));
  ASSERT_EQ(half.entries().size(), whole.entries().size());
  for (const checkpoint::SafetensorsEntry& entry : whole.entries()) {
    std::vector<float> expected(static_cast<std::size_t>(entry.elems())), rounded(expected.size());
    whole.read_f32(entry, 0, expected);
    ASSERT_EQ(half.find(entry.name)->dtype, "BF16");
    half.read_f32(*half.find(entry.name), 0, rounded);
    for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(rounded[i], to_float(to_bfloat16(expected[i])));
  }
  EXPECT_NE(content("half/config.json").find("bfloat16"), std::string::npos);
}

// Alone, and by numbers of ranks that share the checkpoint in other pieces than it was written in.
TEST_F(InteropCommands, TrainingStartsFromImportedWeights) {
  const double expected = tiny_.golden<double>("loss")[0];
  for (const int ranks : {kAlone, 2, 4}) {
    const std::string run = "run-" + std::to_string(ranks);
    ASSERT_EQ(import("hf", run, {"--tokenizer", "tiny"}).exit_code, 0);
    const ProgramEnd end = train(run, ranks, {"checkpoint.resume=true"});
    ASSERT_EQ(end.exit_code, 0) << end.output;
    EXPECT_NE(end.output.find("starting from the weights that were imported"), std::string::npos) << end.output;
    const launch::Metrics metrics = launch::read_metrics(tiny_.files(), launch::metrics_path(tiny_.path(run)));
    ASSERT_EQ(metrics.steps.size(), 6u);
    EXPECT_EQ(metrics.steps.front().step, 1);
    EXPECT_NEAR(metrics.steps.front().loss, expected, 2e-6 * expected) << ranks;
    EXPECT_LT(metrics.steps.back().loss, expected - 0.1);
    EXPECT_FALSE(exported(run) == content("hf/model.safetensors")) << "training has changed nothing";
  }
}

// Moments start at zero: a run from imported weights is the run that goes on from them.
TEST_F(InteropCommands, AnImportedRunResumesAsAnyOther) {
  ASSERT_EQ(import("hf", "whole").exit_code, 0);
  ASSERT_EQ(import("hf", "parts").exit_code, 0);
  ASSERT_EQ(train("whole", kAlone).exit_code, 0);
  ASSERT_EQ(train("parts", kAlone, {"train.stop_at=3"}).exit_code, 0);
  ASSERT_EQ(train("parts", kAlone).exit_code, 0);
  EXPECT_TRUE(exported("whole") == exported("parts"));
}

TEST_F(InteropCommands, TheTokenizerMustBeThatOfTheData) {
  ASSERT_EQ(import("hf", "other", {"--tokenizer", "gpt2"}).exit_code, 0);
  expect_error(train("other", kAlone), ExitCode::kData, "its tokenizer is \"tiny\"");
  ASSERT_EQ(import("hf", "unknown").exit_code, 0);
  EXPECT_EQ(train("unknown", kAlone, {"train.stop_at=1"}).exit_code, 0);
}

TEST_F(InteropCommands, TheModelMustBeThatOfTheConfig) {
  ASSERT_EQ(import("hf", "run").exit_code, 0);
  expect_error(train("run", kAlone, {"train.sequence=4"}), ExitCode::kIncompatibleCheckpoint,
               "train.sequence is 5, ours 4; set train.sequence=5, or choose another run.dir");
  expect_error(train("run", 2, {"model.heads=4"}), ExitCode::kIncompatibleCheckpoint, "model.heads is 3");
}

TEST_F(InteropCommands, ARunFolderInUseIsLeftAlone) {
  ASSERT_EQ(import("hf", "run").exit_code, 0);
  expect_error(import("bare", "run"), ExitCode::kConfig, "holds a run already");
  EXPECT_TRUE(exported("run") == content("hf/model.safetensors"));
}

TEST_F(InteropCommands, WhatDoesNotFitIsNamedAndNothingIsMade) {
  const std::string whole = content("hf/model.safetensors"), config = content("hf/config.json");
  const auto replaced = [](std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    EXPECT_NE(at, text.npos) << from;
    return text.replace(at, from.size(), to);
  };
  put("none/model.safetensors", whole);
  expect_error(import("none", "run"), ExitCode::kConfig, "config.json: is missing");
  put("none/config.json", replaced(config, "\"n_layer\": 2", "\"n_layer\": 3"));
  expect_error(import("none", "run"), ExitCode::kIncompatibleCheckpoint, "h.2.mlp.c_fc.weight is missing");
  put("none/config.json", replaced(config, "\"n_layer\": 2", "\"n_layer\": 1"));
  expect_error(import("none", "run"), ExitCode::kIncompatibleCheckpoint, "h.1.attn.c_attn.bias is not known");
  put("none/config.json", replaced(config, "\"vocab_size\": 19", "\"vocab_size\": 20"));
  expect_error(import("none", "run"), ExitCode::kIncompatibleCheckpoint,
               "wte.weight is [19, 12], config.json says [20, 12]");
  put("none/config.json", replaced(config, "gelu_new", "relu"));
  expect_error(import("none", "run"), ExitCode::kIncompatibleCheckpoint, "activation_function is \"relu\"");
  put("none/config.json", config);
  put("none/model.safetensors", whole.substr(0, whole.size() - 1));
  expect_error(import("none", "run"), ExitCode::kNoCheckpoint, "none/model.safetensors");
  fs::create_directories(tiny_.path("folder/model.safetensors"));
  put("folder/config.json", config);
  expect_error(import("folder", "run"), ExitCode::kConfig, "a folder of this name is in the way");
  put("folder-config/model.safetensors", whole);
  fs::create_directories(tiny_.path("folder-config/config.json"));
  expect_error(import("folder-config", "run"), ExitCode::kConfig, "a folder of this name is in the way");
  // A head that differs from the token table in the last byte of the file.
  std::string bare = content("bare/model.safetensors");
  const auto source = checkpoint::Safetensors::open(tiny_.files(), tiny_.path("bare"));
  const checkpoint::SafetensorsEntry& head = *source.find("lm_head.weight");
  bare[head.offset_bytes + head.size_bytes - 1] ^= 1;
  put("untied/model.safetensors", bare);
  put("untied/config.json", config);
  expect_error(import("untied", "run"), ExitCode::kIncompatibleCheckpoint, "a head of its own");
  EXPECT_FALSE(fs::exists(tiny_.path("run"))) << "a refused import left a run folder";
  expect_error(import("nowhere", "run"), ExitCode::kConfig, "nowhere");
  expect_error(import("hf", "run", {"--tokenizer", std::string(257, 'x')}), ExitCode::kConfig, "--tokenizer");
  expect_error(strake({"export", path("hf"), "--out", path("out")}), ExitCode::kNoCheckpoint, "no checkpoint");
  expect_error(strake({"export", path("hf"), "--out", path("out"), "--dtype", "f16"}), ExitCode::kConfig, "--dtype");
}

TEST_F(InteropCommands, ExportLeavesFilesOfOthersAndCheckpointsAlone) {
  ASSERT_EQ(import("hf", "run").exit_code, 0);
  const auto out = [&](const std::string& folder) { return strake({"export", path("run"), "--out", path(folder)}); };
  put("llama/config.json", "{\"model_type\": \"llama\"}");
  put("app/config.json", "[1, 2");
  put("bare-weights/model.safetensors", "weights");
  expect_error(out("llama"), ExitCode::kConfig, "llama/config.json is there");
  expect_error(out("app"), ExitCode::kConfig, "app/config.json is there");
  expect_error(out("bare-weights"), ExitCode::kConfig, "bare-weights/model.safetensors is there");
  EXPECT_EQ(content("llama/config.json"), "{\"model_type\": \"llama\"}");
  EXPECT_EQ(content("bare-weights/model.safetensors"), "weights");
  for (const char* folder : {"run/ckpt", "run/ckpt/", "run/ckpt/step-00000000", "run/ckpt/export", "run/ckpt/a/../b"}) {
    expect_error(out(folder), ExitCode::kConfig, "is in a folder of checkpoints");
  }
  EXPECT_FALSE(fs::exists(tiny_.path("run/ckpt/export")));
  fs::create_directories(tiny_.path("blocked/config.json.tmp"));
  expect_error(out("blocked"), ExitCode::kConfig, "--out: ");
  put("file", "text");
  expect_error(out("file"), ExitCode::kConfig, "file is a file");
  expect_error(out("file/export"), ExitCode::kConfig, "file is a file");
  EXPECT_EQ(content("file"), "text");
  EXPECT_EQ(out("again").exit_code, 0);
  EXPECT_EQ(out("again").exit_code, 0) << "an older export is replaced";
  EXPECT_EQ(out("run/export").exit_code, 0);
}

// Every family: by whatever names and in whatever files the weights come, they go out as they came.
class FamilyCommands : public InteropCommands, public testing::WithParamInterface<const char*> {
 protected:
  FamilyCommands() : InteropCommands(GetParam()) {}
};

TEST_P(FamilyCommands, ExportGivesTheImportedFileBack) {
  for (const std::string source : {"hf", "bare", "sharded"}) {
    ASSERT_EQ(import(source, "run-" + source).exit_code, 0);
    EXPECT_TRUE(exported("run-" + source) == content("hf/model.safetensors")) << source;
  }
  ASSERT_EQ(import("run-hf-out", "again").exit_code, 0);
  EXPECT_TRUE(exported("again") == content("hf/model.safetensors"));
  EXPECT_EQ(content("again-out/config.json"), content("run-hf-out/config.json"));
  // Rounded once, they are as round as they get.
  ASSERT_EQ(strake({"export", path("again"), "--out", path("half"), "--dtype", "bf16"}).exit_code, 0);
  ASSERT_EQ(import("half", "half-run").exit_code, 0);
  ASSERT_EQ(strake({"export", path("half-run"), "--out", path("half-again"), "--dtype", "bf16"}).exit_code, 0);
  EXPECT_TRUE(content("half/model.safetensors") == content("half-again/model.safetensors"));
}

// In files of a size that is asked for, and the same model when it comes back.
TEST_P(FamilyCommands, AnExportMayBeCutIntoFiles) {
  const auto out = [&](const std::string& run, const std::vector<std::string>& more) {
    std::vector<std::string> words{"export", path(run), "--out", path("cut")};
    words.insert(words.end(), more.begin(), more.end());
    return strake(words);
  };
  ASSERT_EQ(import("hf", "run").exit_code, 0);
  const std::string whole = exported("run");
  ASSERT_EQ(out("run", {}).exit_code, 0);
  const ProgramEnd cut = out("run", {"--max-shard-size", "4KB"});
  ASSERT_EQ(cut.exit_code, 0) << cut.output;
  EXPECT_NE(cut.output.find("model.safetensors.index.json: "), std::string::npos) << cut.output;
  EXPECT_FALSE(fs::exists(tiny_.path("cut/model.safetensors"))) << "readers would prefer it";
  const auto index = nlohmann::json::parse(content("cut/model.safetensors.index.json"));
  std::set<std::string> files;
  for (const auto& [tensor, file] : index.at("weight_map").items()) files.insert(file.get<std::string>());
  EXPECT_GT(files.size(), 2u);
  EXPECT_NE(cut.output.find(" in " + std::to_string(files.size()) + " files"), std::string::npos) << cut.output;
  std::uint64_t total = 0;
  for (const std::string& file : files) total += fs::file_size(tiny_.path("cut/" + file));
  EXPECT_GT(total, index.at("metadata").at("total_size").get<std::uint64_t>()) << "headers";
  ASSERT_EQ(import("cut", "again").exit_code, 0);
  EXPECT_TRUE(exported("again") == whole);
  ASSERT_EQ(out("run", {}).exit_code, 0);
  EXPECT_TRUE(content("cut/model.safetensors") == whole);
  EXPECT_FALSE(fs::exists(tiny_.path("cut/model.safetensors.index.json")));
}

TEST_P(FamilyCommands, TheConfigSaysWhatTheFileHolds) {
  const std::string config = content("hf/config.json");
  const bool gpt2 = std::string(GetParam()) == "gpt2";
  const std::string layers = gpt2 ? "\"n_layer\": 2" : "\"num_hidden_layers\": 2";
  const auto with_layers = [&](const char* number) {
    std::string text = config;
    return text.replace(text.find(layers) + layers.size() - 1, 1, number);
  };
  put("other/model.safetensors", content("hf/model.safetensors"));
  put("other/config.json", with_layers("3"));
  expect_error(import("other", "run"), ExitCode::kIncompatibleCheckpoint, "is missing");
  put("other/config.json", with_layers("1"));
  expect_error(import("other", "run"), ExitCode::kIncompatibleCheckpoint, "is not known");
  EXPECT_FALSE(fs::exists(tiny_.path("run")));
}

INSTANTIATE_TEST_SUITE_P(Models, FamilyCommands, testing::Values("gpt2", "llama", "llama3", "mistral", "qwen2"),
                         [](const auto& test) { return test.param; });

struct LlamaCommands : InteropCommands {
  LlamaCommands() : InteropCommands("llama") {}
};

TEST_F(LlamaCommands, ImportPrintsTheKeysOfTheModel) {
  const ProgramEnd end = import("hf", "run");
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("model.kind=llama model.layers=2 model.channels=12 model.heads=6 model.vocab=19 "
                            "train.sequence=5 model.kv_heads=2 model.head_size=4 model.mlp_channels=20 "
                            "model.tied_head=false model.norm_epsilon=1e-06 model.rope_theta=100"),
            std::string::npos)
      << end.output;
}

// Rotary positions have no table that would end.
TEST_F(LlamaCommands, TheSequenceMayBeAnother) {
  ASSERT_EQ(import("hf", "run", {"--sequence", "3"}).exit_code, 0);
  EXPECT_TRUE(exported("run") == content("hf/model.safetensors"));
  EXPECT_NE(content("run-out/config.json").find("\"max_position_embeddings\": 3"), std::string::npos);
}

TEST_F(LlamaCommands, AHeadOfItsOwnMustBeThere) {
  std::string config = content("hf/config.json");
  put("tied/model.safetensors", content("hf/model.safetensors"));
  const std::string untied = "\"tie_word_embeddings\": false";
  put("tied/config.json", config.replace(config.find(untied), untied.size(), "\"tie_word_embeddings\": true"));
  expect_error(import("tied", "run"), ExitCode::kIncompatibleCheckpoint, "a head of its own");
}

TEST_F(InteropCommands, LearnedPositionsGiveTheSequence) {
  expect_error(import("hf", "run", {"--sequence", "3"}), ExitCode::kConfig, "--sequence: 3 is not possible");
  EXPECT_EQ(import("hf", "run", {"--sequence", "5"}).exit_code, 0);
}

TEST_F(InteropCommands, EveryShardOfTheIndexMustBeThere) {
  fs::remove(tiny_.path("sharded/model-00002-of-00002.safetensors"));
  expect_error(import("sharded", "run"), ExitCode::kNoCheckpoint, "which is not there");
  EXPECT_FALSE(fs::exists(tiny_.path("run")));
}

// A run of an earlier version, made from one of this: weights and moments [out, in], queries before keys before values.
class EarlierVersion : public InteropCommands {
 protected:
  void store_as_earlier_version(const std::string& run, const std::string& old) {
    const auto found = *checkpoint::find_newest(tiny_.files(), launch::checkpoint_folder(tiny_.path(run)));
    const auto shape = models::TransformerShape::from_json(found.manifest.meta.model);
    launch::HostWeights weights(shape);
    const std::pair<const char*, Tensor> state[] = {
        {"param/", weights.flat}, {"adam_m/", weights.reserve()}, {"adam_v/", weights.reserve()}};
    weights.memory.allocate(*weights.device);
    TensorTable today, earlier;
    for (const auto& [prefix, flat] : state) models::append_ranges(today, prefix, weights.layout, flat);
    launch::read_into(tiny_.files(), found, weights, today);
    for (const auto& [prefix, flat] : state) {
      for (const models::ForeignTensor& tensor : models::counted_storage_tensors(shape)) {
        const Tensor view = weights.view(flat, tensor.param);
        std::vector<float> counted(static_cast<std::size_t>(view.elems()));
        models::copy_to(tensor, weights.layout.spec(tensor.param), host_span<float>(view), counted);
        std::ranges::copy(counted, host_span<float>(view).begin());
        earlier.entries.push_back({.name = prefix + tensor.name, .global_shape = tensor.shape, .view = view});
      }
    }
    checkpoint::Meta meta = found.manifest.meta;
    meta.model = R"({"channels":12,"heads":3,"kind":"gpt2","layers":2,"sequence":5,"vocab":19})";
    launch::start_run_from(tiny_.files(), tiny_.path(old), weights, earlier, meta);
  }
};

TEST_F(EarlierVersion, ItsRunGoesOnWhenItIsConverted) {
  ASSERT_EQ(train("straight", kAlone).exit_code, 0);
  ASSERT_EQ(train("half", kAlone, {"train.stop_at=3"}).exit_code, 0);
  store_as_earlier_version("half", "old");
  const ProgramEnd end = strake({"ckpt", "convert", path("old"), "--run", path("new")});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("step 3 of"), std::string::npos) << end.output;
  const auto meta_of = [&](const std::string& run) {
    checkpoint::Meta meta =
        checkpoint::find_newest(tiny_.files(), launch::checkpoint_folder(tiny_.path(run)))->manifest.meta;
    meta.attempt = 0;
    return meta;
  };
  EXPECT_EQ(meta_of("new"), meta_of("half"));
  ASSERT_EQ(train("new", kAlone, {"checkpoint.resume=true"}).exit_code, 0);
  EXPECT_TRUE(exported("new") == exported("straight"));
}

TEST_F(EarlierVersion, IsRefusedNamingTheCommand) {
  ASSERT_EQ(train("half", kAlone, {"train.stop_at=3"}).exit_code, 0);
  store_as_earlier_version("half", "old");
  const std::string told = "strake ckpt convert RUN --run NEW_RUN";
  const std::string before = content("old/ckpt/step-00000003/manifest.json");
  expect_error(train("old", kAlone), ExitCode::kIncompatibleCheckpoint, told);
  expect_error(train("old", 2), ExitCode::kIncompatibleCheckpoint, told);
  expect_error(train("other", kAlone, {"train.init_from=" + path("old")}), ExitCode::kIncompatibleCheckpoint, told);
  expect_error(strake({"export", path("old"), "--out", path("out")}), ExitCode::kIncompatibleCheckpoint, told);
  EXPECT_EQ(content("old/ckpt/step-00000003/manifest.json"), before);
  expect_error(strake({"ckpt", "convert", path("half"), "--run", path("new")}), ExitCode::kConfig,
               "nothing to convert");
  expect_error(strake({"ckpt", "convert", path("old"), "--run", path("half")}), ExitCode::kConfig,
               "holds a run already");
  expect_error(strake({"ckpt", "convert", path("old"), "--run", path("old")}), ExitCode::kConfig,
               "holds a run already");
  EXPECT_FALSE(fs::exists(tiny_.path("new")));
}

TEST_F(EarlierVersion, ConversionWritesWhereNothingCanBeLost) {
  ASSERT_EQ(train("half", kAlone, {"train.stop_at=3"}).exit_code, 0);
  store_as_earlier_version("half", "old");
  const auto convert = [&](const std::string& run) {
    return strake({"ckpt", "convert", path("old"), "--run", path(run)});
  };
  put("file", "text");
  expect_error(convert("file"), ExitCode::kConfig, "file is a file");
  expect_error(convert("file/run"), ExitCode::kConfig, "file is a file");
  EXPECT_EQ(content("file"), "text");
  for (const char* inside : {"old/ckpt", "old/ckpt/new", "old/ckpt/step-00000003", "half/ckpt/../ckpt/new"}) {
    const ProgramEnd end = convert(inside);
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << inside << '\n' << end.output;
    EXPECT_EQ(end.errors().size(), 1u) << end.output;
  }
  expect_error(import("hf", "old/ckpt/new"), ExitCode::kConfig, "is in a folder of checkpoints");
  EXPECT_EQ(fs::exists(tiny_.path("old/ckpt/new")), false);
  // What else is in a folder stays.
  put("mine/notes.txt", "keep");
  put("mine/ckpt/more.txt", "keep");
  ASSERT_EQ(convert("mine").exit_code, 0);
  EXPECT_EQ(content("mine/notes.txt") + content("mine/ckpt/more.txt"), "keepkeep");
  EXPECT_TRUE(exported("mine") == exported("half"));
  // What was there is as it was.
  EXPECT_EQ(strake({"ckpt", "verify", path("old/ckpt/step-00000003")}).exit_code, 0);
}

// Neither a full disk nor a death leaves what looks like a checkpoint, nor anything in the way of the next attempt.
TEST_F(EarlierVersion, AConversionThatDidNotEndIsDoneAgain) {
  ASSERT_EQ(train("half", kAlone, {"train.stop_at=3"}).exit_code, 0);
  store_as_earlier_version("half", "old");
  const std::vector<std::string> arguments{"ckpt", "convert", path("old"), "--run", path("new")};
  const ProgramEnd full = StrakeProgram::run(kAlone, arguments, tiny_.path("."), {.file_bytes = 4 * 1024});
  expect_error(full, ExitCode::kStorage, "new/ckpt");
  EXPECT_TRUE(checkpoint::committed_steps(tiny_.files(), tiny_.path("new/ckpt")).empty());
  expect_error(strake({"export", path("new"), "--out", path("out")}), ExitCode::kNoCheckpoint, "no checkpoint");
  put("new/ckpt/step-00000003.tmp-1/rank-0000.h5", "half of it");  // of one that was killed
  const ProgramEnd again = strake(arguments);
  ASSERT_EQ(again.exit_code, 0) << again.output;
  EXPECT_FALSE(fs::exists(tiny_.path("new/ckpt/step-00000003.tmp-1")));
  EXPECT_TRUE(exported("new") == exported("half"));
}

// A disk that is full ends in one error, and leaves neither a model nor a half one.
TEST_F(InteropCommands, AFullDiskLeavesNoHalfFile) {
  ASSERT_EQ(import("hf", "run").exit_code, 0);
  const ProgramEnd end = StrakeProgram::run(kAlone, {"export", path("run"), "--out", path("full")}, tiny_.path("."),
                                            {.file_bytes = 8 * 1024});
  expect_error(end, ExitCode::kStorage, "model.safetensors");
  EXPECT_EQ(tiny_.files().list(tiny_.path("full")), std::vector<std::string>{"config.json"});
}

}  // namespace
}  // namespace strake::test
