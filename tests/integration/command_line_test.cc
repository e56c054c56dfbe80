// The command line as people meet it: help, words that are wrong, completion, paths, places that cannot be written to.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "launch/config.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

struct ShellEnd {
  int exit_code;
  std::string output;
};

// A line of sh, with the program as `strake`.
ShellEnd shell(const std::string& line, const std::string& shell_name = "sh") {
  const std::string command = "strake() { " STRAKE_PROGRAM " \"$@\"; }\n" + line;
  ::setenv("STRAKE_TEST_LINE", command.c_str(), 1);
  FILE* const pipe = ::popen((shell_name + " -c \"$STRAKE_TEST_LINE\" 2>&1 </dev/null").c_str(), "r");
  ShellEnd end{-1, ""};
  std::array<char, 4096> part;
  for (std::size_t size; (size = std::fread(part.data(), 1, part.size(), pipe)) > 0;)
    end.output.append(part.data(), size);
  const int status = ::pclose(pipe);
  end.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return end;
}

std::set<std::string> lines_of(const std::string& text) {
  std::set<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.insert(line);
  return lines;
}

TEST(Help, EveryCommandHasItWithAnExample) {
  const std::string all = shell("strake --help").output;
  int commands = 0;
  for (const char* command : {"",
                              "train",
                              "plan",
                              "bench",
                              "bench step",
                              "bench kernels",
                              "bench checkpoint",
                              "verify-overlap",
                              "data",
                              "data prepare",
                              "generate",
                              "import",
                              "export",
                              "ckpt",
                              "ckpt list",
                              "ckpt verify",
                              "ckpt view",
                              "ckpt diff",
                              "ckpt prune",
                              "ckpt convert",
                              "info",
                              "completion",
                              "help"}) {
    const std::string name = command;
    const ShellEnd help = shell("strake " + name + " --help");
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_EQ(shell("strake help " + name).output, help.output) << command;
    if (name != "help") {
      EXPECT_NE(help.output.find("Usage: strake" + (name.empty() ? "" : " " + name)), std::string::npos) << help.output;
    }
    EXPECT_NE(help.output.find("Example:\n  strake "), std::string::npos) << help.output;
    for (const char* machine_word : {"->", "{auto", " INT", " UINT", " FLOAT", "REQUIRED"}) {
      EXPECT_EQ(help.output.find(machine_word), std::string::npos) << help.output;
    }
    if (name.find(' ') == std::string::npos && !name.empty()) {
      EXPECT_NE(all.find("\n  " + name + " "), std::string::npos) << all;
      ++commands;
    }
  }
  // None was forgotten above.
  EXPECT_EQ(static_cast<std::size_t>(commands),
            lines_of(all.substr(all.find("Commands:"), all.find("Example:") - all.find("Commands:"))).size() - 2)
      << all;
}

TEST(Help, ExplainsItself) {
  const std::string help = shell("strake help help").output;
  EXPECT_TRUE(help.find("Usage: strake help [COMMAND...]\n") != std::string::npos) << help;
  EXPECT_EQ(shell("strake help data prepare --help").output, shell("strake data prepare --help").output);
}

TEST(Help, IsWhatTheBareProgramPrints) {
  const ShellEnd bare = shell("strake");
  EXPECT_EQ(bare.exit_code, 0);
  EXPECT_EQ(bare.output, shell("strake --help").output);
  EXPECT_EQ(bare.output, shell("strake help").output);
}

struct BadLine {
  const char* line;
  const char* says;
};

class BadLineTest : public testing::TestWithParam<BadLine> {};

TEST_P(BadLineTest, IsOneErrorThatSaysWhatToWrite) {
  const ShellEnd end = shell(std::string("cd /; strake ") + GetParam().line);
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
  EXPECT_EQ(lines_of(end.output).size(), 1u) << end.output;
  EXPECT_TRUE(end.output.starts_with("strake: error: ")) << end.output;
  EXPECT_NE(end.output.find(GetParam().says), std::string::npos) << end.output;
}

INSTANTIATE_TEST_SUITE_P(
    Words, BadLineTest,
    testing::Values(
        BadLine{"trian c.toml", "strake: \"trian\" is not known; did you mean train?"},
        BadLine{"help trian", "strake: \"trian\" is not known; did you mean train?"},
        BadLine{"help data nosuch", "strake data: \"nosuch\" is not known; write one of prepare"},
        BadLine{"help --nosuch", "strake: \"--nosuch\" is not known; write one of train"},
        BadLine{"help train extra", "strake train: \"extra\" is not known"}, BadLine{"help ''", "\"\" is not known"},
        BadLine{"frobnicate", "write one of train, plan, bench, verify-overlap, data"},
        BadLine{"bench kernel", "did you mean kernels?"}, BadLine{"bench kernels", "CONFIG.toml is missing"},
        BadLine{"bench kernels c.toml --agianst f", "did you mean --against?"},
        BadLine{"data prepar", "did you mean prepare?"},
        BadLine{"ckpt",
                "strake ckpt: a command is missing; write one of list, verify, view, diff, prune, convert; see `strake "
                "ckpt --help`"},
        BadLine{"train", "strake train: CONFIG.toml is missing"},
        BadLine{"data prepare", "TEXT and --train FILE are missing"},
        BadLine{"train c.toml --print-shedule", "did you mean --print-schedule?"},
        BadLine{"generate r --tok 5", "did you mean --tokens?"},
        BadLine{"train c.toml --train.stpes=3", "keys are written without dashes: did you mean train.steps=VALUE?"},
        BadLine{"train c.toml --lr 4", "its options are --help, --print-schedule"},
        BadLine{"generate r extra", "\"extra\" is not known"}, BadLine{"'' ''", "\"\" is not known"},
        BadLine{"\"$(printf '\\377\\033[31m')\"", "\"\\ufffd\\u001b[31m\" is not known"}));

INSTANTIATE_TEST_SUITE_P(
    Values, BadLineTest,
    testing::Values(
        BadLine{"generate r --device gpu", "--device: \"gpu\" is not accepted; write auto, cpu or cuda; see"},
        BadLine{"plan c.toml --memory 80", "--memory: \"80\" is not accepted; write a number and KiB, MiB, GiB, TiB"},
        BadLine{"plan c.toml --memory -1GiB", "--memory: \"-1GiB\" is not accepted"},
        BadLine{"plan c.toml --memory 0GiB", "--memory: \"0GiB\" is not accepted"},
        BadLine{"plan c.toml --memory 9e99GiB", "--memory: \"9e99GiB\" is not accepted"},
        BadLine{"plan c.toml --memory ''", "--memory: \"\" is not accepted"},
        BadLine{"plan c.toml --ranks 0", "--ranks: \"0\" is not accepted; write an integer from 1 to 4096"},
        BadLine{"plan c.toml --ranks 1.5", "--ranks: \"1.5\" is not accepted"},
        BadLine{"plan c.toml --device tpu", "--device: \"tpu\" is not accepted; write cpu or cuda"},
        BadLine{"train ''", "\"\" is not accepted; write a path"},
        BadLine{"ckpt list ''", "\"\" is not accepted; write a path"},
        BadLine{"data prepare t --train x --val y --val-fraction ''",
                "--val-fraction: \"\" is not accepted; write a number from 0 to below 1"},
        BadLine{"data prepare t --train x --val y --val-fraction abc",
                "--val-fraction: \"abc\" is not accepted; write a number from 0 to below 1"},
        BadLine{"data prepare t --train x --val y --val-fraction=1", "--val-fraction: \"1\" is not accepted"},
        BadLine{"generate r --device ''", "--device: \"\" is not accepted; write auto, cpu or cuda"},
        BadLine{"export r --out o --dtype f16", "--dtype: \"f16\" is not accepted; write f32 or bf16"},
        BadLine{"completion fish", "\"fish\" is not accepted; write bash or zsh"},
        BadLine{"generate r --tokens many", "--tokens: \"many\" is not accepted; write an integer from 1"},
        BadLine{"generate r --tokens 0", "--tokens: \"0\" is not accepted"},
        BadLine{"generate r --tokens 99999999999999999999", "--tokens: \"99999999999999999999\" is not accepted"},
        BadLine{"generate r --tokens", "--tokens: takes one value; write --tokens NUMBER"},
        BadLine{"generate r --tokens 1 --tokens 2", "--tokens: takes one value"},
        BadLine{"generate r --seed -1", "--seed: \"-1\" is not accepted; write an integer from 0"},
        BadLine{"generate r --temperature nan", "--temperature: \"nan\" is not accepted; write a number from 0 to 100"},
        BadLine{"bench step c.toml --steps 1e9", "--steps: \"1e9\" is not accepted; write an integer from 1"},
        BadLine{"bench checkpoint c.toml --strategies sync,none",
                "--strategies: \"none\" is not accepted; write sync, pinned, lazy, device or auto"},
        BadLine{"bench checkpoint c.toml --every 1", "--every: \"1\" is not accepted; write an integer from 2"},
        BadLine{"bench kernels c.toml --steps 0", "--steps: \"0\" is not accepted; write an integer from 1"},
        BadLine{"bench kernels c.toml --against ''", "--against: \"\" is not accepted; write a path"}));

TEST(Paths, MayBeginWithTheHomeFolder) {
  const ScratchFolder home;
  const std::string in = "HOME='" + home.path().string() + "'; export HOME; cd /; ";
  std::ofstream(home.path() / "a text.txt") << std::string(5000, 'a') << "end\n";
  ShellEnd end = shell(in + "strake data prepare '~/a text.txt' --train='~/t.bin' --val '~/v.bin'");
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_TRUE(std::filesystem::exists(home.path() / "t.bin"));
  std::ofstream(home.path() / "c.toml")
      << "[model]\nlayers = 1\nchannels = 16\nheads = 2\n[train]\nsteps = 1\nstop_at = 1\nsequence = 16\n";
  end = shell(in + "strake train '~/c.toml' \"run.dir=$HOME/run\" \"data.train=$HOME/t.bin\"");
  EXPECT_EQ(end.exit_code, 0) << end.output;
  end = shell(in + "strake ckpt list '~/run'");
  EXPECT_EQ(end.exit_code, 0) << end.output;
  end = shell(in + "strake export '~/run' --out='~/weights'");
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_TRUE(std::filesystem::exists(home.path() / "weights" / "model.safetensors"));
  end = shell(in + "strake generate '~/run' --prompt '~' --tokens 1");
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_TRUE(end.output.starts_with("~")) << "a text is no path: " << end.output;
}

// But not where nobody wants it: closed.
TEST(Output, ThatIsLostIsAnError) {
  for (const char* line : {"info", "info --keys", "--help", "--version", "completion bash"}) {
    const ShellEnd end = shell(std::string("strake ") + line + " > /dev/full");
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kStorage)) << line << '\n' << end.output;
    EXPECT_TRUE(end.output.starts_with("strake: error: standard output cannot be written")) << line << end.output;
    EXPECT_EQ(shell(std::string("strake ") + line + " >&-").exit_code, 0) << line;
  }
}

TEST(Paths, MayHoldAnythingOrNotBeThere) {
  const ProgramJob job;
  for (const char* name : {"a b", "\u00fc \u65e5\u672c", "x=y", "-x", "a'\"b$c", "\xff"}) {
    const ProgramEnd end = job.train(0, name, {"train.steps=1", "train.stop_at=1", "eval.every=0"});
    EXPECT_EQ(end.exit_code, 0) << name << '\n' << end.output;
    EXPECT_EQ(job.steps_done(name), 1) << name;
    const ProgramEnd listed = StrakeProgram::run(0, {"ckpt", "list", job.run_folder(name)}, job.folder());
    EXPECT_EQ(listed.exit_code, 0) << name << '\n' << listed.output;
  }
  for (const std::string& bad :
       {std::string("/proc/run"), std::string("/dev/null/run"), "/tmp/" + std::string(300, 'x')}) {
    const ProgramEnd end = StrakeProgram::run(0, {"train", job.config_path(), "run.dir=" + bad}, job.folder());
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    EXPECT_TRUE(end.errors()[0].starts_with("run.dir: " + bad + " cannot be used")) << end.output;
  }
}

// The line people copy, in an environment that helps it with nothing: as root too, which Open MPI refuses otherwise.
TEST(Readme, ItsMpirunLineWorksAsItStands) {
  std::ifstream readme(STRAKE_SOURCE_FOLDER "/README.md");
  std::string line;
  while (std::getline(readme, line) && line.find("strake train CONFIG.toml [key=value ...]") == std::string::npos) {
  }
  ASSERT_TRUE(line.starts_with("mpirun ")) << line;
  const ProgramJob job;
  const auto replace = [&](const std::string& word, const std::string& by) {
    const std::size_t at = line.find(word);
    ASSERT_NE(at, std::string::npos) << word;
    line.replace(at, word.size(), by);
  };
  replace("strake train", STRAKE_PROGRAM " train");
  replace("CONFIG.toml", job.config_path().string());
  replace("[key=value ...]", "train.steps=2 eval.every=0 run.dir=" + job.run_folder("run").string());
  const ShellEnd end = shell("env -i PATH=\"$PATH\" HOME=\"$HOME\" " + line);
  EXPECT_EQ(end.exit_code, 0) << line << '\n' << end.output;
  EXPECT_EQ(job.steps_done("run"), 2) << end.output;
}

// What bash offers at the end of `line`.
std::set<std::string> offered(const std::string& words, int cursor, const std::string& folder,
                              const std::string& before = "") {
  return lines_of(shell(before + "eval \"$(strake completion bash)\"; cd '" + folder + "'; COMP_WORDS=(" + words +
                            "); COMP_CWORD=" + std::to_string(cursor) + "; _strake; printf '%s\\n' \"${COMPREPLY[@]}\"",
                        "bash")
                      .output);
}

// What zsh offers there: its functions for matches are replaced by ones that print.
std::set<std::string> offered_by_zsh(const std::string& words, int cursor, const std::string& prefix) {
  return lines_of(shell("compdef() { : }; compset() { : }; _files() { print FILES };"
                        "compadd() { while [[ $1 != -- ]]; do shift; done; shift; local m; for m; do [[ $m != "
                        "${PREFIX##*=}* ]] || print -- $m; done };"
                        "eval \"$(strake completion zsh)\"; words=(" +
                            words + "); CURRENT=" + std::to_string(cursor + 1) + "; PREFIX='" + prefix + "'; _strake",
                        "zsh -f")
                      .output);
}

class Completion : public testing::Test {
 protected:
  Completion() {
    std::ofstream(folder_.path() / "my config.toml");
    std::ofstream(folder_.path() / "trained.bin");
    std::filesystem::create_directory(folder_.path() / "trained runs");
  }
  using Words = std::set<std::string>;
  ScratchFolder folder_;
};

TEST_F(Completion, OfBashKnowsCommandsOptionsKeysAndFiles) {
  const std::string folder = folder_.path().string();
  EXPECT_EQ(offered("strake tr", 1, folder), Words{"train"});
  EXPECT_EQ(offered("strake ckpt ''", 2, folder),
            (Words{"list", "verify", "view", "diff", "prune", "convert", "--help"}));
  EXPECT_EQ(offered("strake help ex", 2, folder), Words{"export"});
  EXPECT_EQ(offered("strake generate --d", 2, folder), Words{"--device"});
  EXPECT_EQ(offered("strake generate --device c", 3, folder), (Words{"cpu", "cuda"}));
  EXPECT_EQ(offered("strake generate --tokens ''", 3, folder), Words{""});
  EXPECT_EQ(offered("strake plan c.toml --device ''", 4, folder), (Words{"cpu", "cuda"}));
  EXPECT_EQ(offered("strake plan c.toml train.recompute = ''", 5, folder), (Words{"none", "norm_activation", "block"}));
  EXPECT_EQ(offered("strake train m", 2, folder),
            (Words{"my config.toml", "model.kind=", "model.layers=", "model.channels=", "model.heads=", "model.vocab=",
                   "model.kv_heads=", "model.head_size=", "model.mlp_channels=", "model.norm_epsilon=",
                   "model.rope_theta=", "model.rope_scaling=", "model.tied_head="}));
  EXPECT_EQ(offered("strake train c.toml optimizer.warmup_r", 3, folder), Words{"optimizer.warmup_ratio="});
  EXPECT_EQ(offered("strake train c.toml run.device = c", 5, folder), (Words{"cpu", "cuda"}));
  EXPECT_EQ(offered("strake train c.toml run.device =", 4, folder), (Words{"auto", "cpu", "cuda"}));
  EXPECT_EQ(offered("strake train c.toml data.train = tr", 5, folder), (Words{"trained.bin", "trained runs"}));
  EXPECT_EQ(offered("strake train c.toml train.steps = ''", 5, folder), Words{""});
  EXPECT_EQ(offered("strake train c.toml train.init_from = ''", 5, folder), Words{"trained runs"});
  EXPECT_EQ(offered("strake train c.toml run.dir =", 4, folder), Words{"trained runs"});
  EXPECT_EQ(offered("strake generate r --device = c", 5, folder), (Words{"cpu", "cuda"}));
  EXPECT_EQ(offered("strake generate r --device =", 4, folder), (Words{"auto", "cpu", "cuda"}));
  EXPECT_EQ(offered("strake export r --dtype = ''", 5, folder), (Words{"f32", "bf16"}));
  EXPECT_EQ(offered("strake export r --out = ''", 5, folder), (Words{"my config.toml", "trained.bin", "trained runs"}));
  EXPECT_EQ(offered("strake data prepare t --train = trained.", 6, folder), Words{"trained.bin"});
  EXPECT_EQ(offered("strake help data ''", 3, folder), Words{"prepare"});
  EXPECT_EQ(offered("strake help ckpt ve", 3, folder), Words{"verify"});
  EXPECT_EQ(offered("strake train --print-schedule tr", 3, folder).contains("train.steps="), true)
      << "a switch takes no value";
  for (const auto& key : launch::config_keys()) {
    EXPECT_EQ(offered("strake bench step c.toml " + key.name, 4, folder).contains(key.name + "="), true) << key.name;
  }
}

// What is completed as the name of a file is quoted by bash: `log.format=` became `log.format\=`.
TEST_F(Completion, OfBashQuotesNamesOfFilesOnly) {
  const std::string folder = folder_.path().string();
  const auto options = [&](const std::string& words, int cursor) {
    std::set<std::string> out = offered(words, cursor, folder, "compopt() { echo \"compopt $1 $2\"; }; ");
    std::erase_if(out, [](const std::string& line) { return !line.starts_with("compopt "); });
    return out;
  };
  EXPECT_EQ(options("strake train c.toml log.form", 3), Words{"compopt -o nospace"});
  EXPECT_EQ(options("strake train my", 2), Words{"compopt -o filenames"});
  EXPECT_EQ(options("strake train c.toml train.init_from = tr", 5), Words{"compopt -o filenames"});
  EXPECT_EQ(options("strake train c.toml log.format = ''", 5), Words{});
}

TEST_F(Completion, OfZshKnowsTheSame) {
  if (shell("command -v zsh").exit_code != 0) GTEST_SKIP() << "there is no zsh here";
  EXPECT_EQ(offered_by_zsh("strake tr", 1, "tr"), Words{"train"});
  EXPECT_EQ(offered_by_zsh("strake generate --device c", 3, "c"), (Words{"cpu", "cuda"}));
  EXPECT_EQ(offered_by_zsh("strake train c.toml run.device=c", 3, "run.device=c"), (Words{"cpu", "cuda"}));
  EXPECT_EQ(offered_by_zsh("strake train c.toml optimizer.warmup_r", 3, "optimizer.warmup_r"),
            (Words{"optimizer.warmup_ratio", "FILES"}));
  EXPECT_EQ(offered_by_zsh("strake train c.toml run.dir=", 3, "run.dir="), Words{"FILES"});
  EXPECT_EQ(offered_by_zsh("strake train c.toml train.init_from=", 3, "train.init_from="), Words{"FILES"});
  EXPECT_EQ(offered_by_zsh("strake help data ''", 3, ""), Words{"prepare"});
}

}  // namespace
}  // namespace strake::test
