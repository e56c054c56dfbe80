#include "launch/run/run_folder.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>

#include "launch/machine/machine.h"
#include "launch/run/manifest.h"
#include "launch/run/metrics.h"
#include "runtime/base/error.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"

namespace strake::launch {
namespace {

Manifest example(const RunFolder& folder) {
  Manifest manifest;
  manifest.run = folder.run();
  manifest.attempt = folder.attempt();
  manifest.command_line = {"strake", "train", "a b.toml", "run.dir=\xff"};  // an argument may be any bytes
  manifest.ranks = {{0, "left", 100, "cpu"}, {1, "right", 101, "cpu"}};
  manifest.mesh.sizes = {2, 1, 1};
  manifest.launcher = "mpirun";
  manifest.choices = R"({"matmul": "a"})";
  return manifest;
}

TEST(RunFolder, IsMadeWithItsParents) {
  test::MemoryFiles files;
  const RunFolder folder = RunFolder::start(files, "/runs/a/b", Resume::kAuto);
  EXPECT_TRUE(files.is_directory("/runs/a/b"));
  EXPECT_EQ(folder.attempt(), 1);
  EXPECT_FALSE(folder.holds_run());
  EXPECT_NE(folder.run(), 0u);
}

TEST(RunFolder, AttemptsCountAndTheRunStaysTheSame) {
  test::MemoryFiles files;
  std::uint64_t run = 0;
  for (int attempt = 1; attempt <= 3; ++attempt) {
    const RunFolder folder = RunFolder::start(files, "/r", Resume::kAuto);
    EXPECT_EQ(folder.attempt(), attempt);
    EXPECT_EQ(folder.holds_run(), attempt > 1);
    if (attempt == 1) run = folder.run();
    EXPECT_EQ(folder.run(), run);
    write_manifest(files, "/r", example(folder));
  }
  EXPECT_EQ(nlohmann::json::parse(read_file(files, "/r/manifest.json", 1 << 20))["attempt"], 3);
  EXPECT_EQ(nlohmann::json::parse(read_file(files, "/r/manifest-0001.json", 1 << 20))["attempt"], 1);
  EXPECT_EQ(nlohmann::json::parse(read_file(files, "/r/manifest-0002.json", 1 << 20))["attempt"], 2);
}

TEST(RunFolder, AnAttemptWithoutItsManifestCounts) {
  test::MemoryFiles files;
  files.make_directory("/r");
  StepMetrics metrics;
  metrics.step = 1;
  metrics.attempt = 4;
  MetricsFile(files, "/r/metrics.jsonl").append(metrics);
  EXPECT_EQ(RunFolder::start(files, "/r", Resume::kAuto).attempt(), 5);
}

TEST(RunFolder, KnowsTheHeldOutLossesOfEarlierAttempts) {
  test::MemoryFiles files;
  EXPECT_TRUE(RunFolder::start(files, "/r", Resume::kAuto).evaluations().empty());
  {
    MetricsFile metrics(files, "/r/metrics.jsonl");
    metrics.append(EvalMetrics{2, 1, 3.0, 8});
    metrics.append(EvalMetrics{4, 1, 2.0, 8});
    metrics.append(EvalMetrics{4, 2, 2.5, 8});
  }
  const RunFolder folder = RunFolder::start(files, "/r", Resume::kAuto);
  ASSERT_EQ(folder.evaluations().size(), 2u);
  EXPECT_EQ(folder.evaluations()[1].val_loss, 2.5);
}

TEST(RunFolder, KnowsWhoWroteTheLineOfAStep) {
  test::MemoryFiles files;
  EXPECT_EQ(RunFolder::start(files, "/r", Resume::kAuto).attempt_of(1), 0);
  {
    MetricsFile metrics(files, "/r/metrics.jsonl");
    for (const auto& [step, attempt] : {std::pair(1, 1), {2, 1}, {4, 1}, {2, 2}})
      metrics.append(StepMetrics{.step = step, .attempt = attempt});
  }
  const RunFolder folder = RunFolder::start(files, "/r", Resume::kAuto);
  EXPECT_EQ(folder.attempt_of(1), 1);
  EXPECT_EQ(folder.attempt_of(2), 2);
  EXPECT_EQ(folder.attempt_of(3), 0);
  EXPECT_EQ(folder.attempt_of(5), 0);
}

TEST(RunFolder, ADamagedManifestIsNoObstacle) {
  test::MemoryFiles files;
  files.make_directory("/r");
  replace_file(files, "/r/manifest.json", "{\"attempt\": ");
  const RunFolder folder = RunFolder::start(files, "/r", Resume::kAuto);
  EXPECT_EQ(folder.attempt(), 2);
  EXPECT_NE(folder.run(), 0u);
}

TEST(RunFolder, CheckpointsAloneAreARun) {
  test::MemoryFiles files;
  files.make_directories("/r/ckpt/step-00000005");
  const RunFolder folder = RunFolder::start(files, "/r", Resume::kMust);
  EXPECT_TRUE(folder.holds_run());
}

TEST(RunFolder, MustResumeNeedsARun) {
  test::MemoryFiles files;
  files.make_directory("/empty");
  for (const char* path : {"/nowhere", "/empty"}) {
    try {
      RunFolder::start(files, path, Resume::kMust);
      FAIL() << path;
    } catch (const NoCheckpointError& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kNoCheckpoint);
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("set checkpoint.resume = auto"), std::string::npos) << error.what();
    }
  }
  EXPECT_FALSE(files.exists("/nowhere")) << "a mistyped run.dir must not leave a folder behind";
}

TEST(RunFolder, NeverResumeRefusesAFolderThatIsNotEmpty) {
  test::MemoryFiles files;
  files.make_directory("/r");
  replace_file(files, "/r/notes.txt", "mine");
  try {
    RunFolder::start(files, "/r", Resume::kNever);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("run.dir: /r is not empty"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("name a new folder"), std::string::npos) << error.what();
  }
  EXPECT_EQ(read_file(files, "/r/notes.txt", 100), "mine");
  EXPECT_EQ(RunFolder::start(files, "/new", Resume::kNever).attempt(), 1);
  EXPECT_EQ(RunFolder::start(files, "/r", Resume::kAuto).attempt(), 1) << "other files are no run";
}

TEST(RunFolder, AFileInItsPlaceIsReported) {
  test::MemoryFiles files;
  replace_file(files, "/r", "a file");
  EXPECT_THROW(RunFolder::start(files, "/r", Resume::kAuto), ConfigError);
}

TEST(RunFolder, AFolderInPlaceOfTheLockIsReported) {
  test::MemoryFiles files;
  files.make_directories("/r/run.lock");
  try {
    RunFolder::start(files, "/r", Resume::kAuto);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("run.dir: /r cannot be used: /r/run.lock"), std::string::npos)
        << error.what();
  }
}

TEST(RunFolder, TheLockOfAnotherHostIsTakenOverIfTheKernelsIsFree) {
  test::MemoryFiles files;
  files.make_directory("/r");
  replace_file(files, "/r/run.lock", "another-host 77 an-id -\n");
  std::string said;
  const RunFolder folder = RunFolder::start(files, "/r", Resume::kAuto, [&](std::string_view line) { said += line; });
  EXPECT_NE(said.find("/r: takes over the lock of process 77 on host another-host"), std::string::npos) << said;
  EXPECT_EQ(folder.attempt(), 1);
}

TEST(RunFolder, OnlyAPathThatCanNeverBeUsedIsConfiguration) {
  for (const auto& [error_number, code] : {std::pair{EACCES, ExitCode::kConfig},
                                           {ENOENT, ExitCode::kConfig},
                                           {ENAMETOOLONG, ExitCode::kConfig},
                                           {ENOSPC, ExitCode::kStorage},
                                           {EROFS, ExitCode::kStorage},
                                           {EIO, ExitCode::kStorage}}) {
    for (const std::int64_t call : {1, 3}) {  // the folder, the lock
      test::MemoryFiles disk;
      test::FaultyFiles files(disk);
      files.fail_at(call, error_number);
      try {
        RunFolder::start(files, "/r", Resume::kAuto);
        ADD_FAILURE() << "call " << call << " fails with " << error_number;
      } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), code) << error.what();
        EXPECT_NE(std::string(error.what()).find("/r"), std::string::npos) << error.what();
      }
    }
  }
}

TEST(RunFolder, ASecondRunIsKeptOut) {
  // Real files: the lock is the kernel's.
  std::string name = (std::filesystem::temp_directory_path() / "strake-run-XXXXXX").string();
  ASSERT_NE(::mkdtemp(name.data()), nullptr);
  PosixFiles files;
  {
    const RunFolder first = RunFolder::start(files, name, Resume::kAuto);
    try {
      RunFolder::start(files, name, Resume::kAuto);
      ADD_FAILURE() << "two runs in one folder";
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("another run is at work in " + name), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(RunFolder::start(files, name, Resume::kNever).attempt(), 1) << "the lock file alone is no content";
  files.remove_all(name);
}

TEST(Manifest, SaysWhatRan) {
  test::MemoryFiles files;
  const RunFolder folder = RunFolder::start(files, "/r", Resume::kAuto);
  write_manifest(files, "/r", example(folder));
  const auto json = nlohmann::json::parse(read_file(files, "/r/manifest.json", 1 << 20));
  EXPECT_EQ(json["command_line"][2], "a b.toml");
  EXPECT_EQ(json["config"]["train"]["steps"], Config{}.train.steps);
  EXPECT_EQ(json["config_hash"], config_hash(Config{}));
  EXPECT_EQ(json["build"]["commit"], build_description().commit);
  EXPECT_FALSE(json["build"]["compiler"].get<std::string>().empty());
  EXPECT_GT(json["hardware"]["cores"].get<int>(), 0);
  EXPECT_GT(json["hardware"]["memory_bytes"].get<std::uint64_t>(), 0u);
  for (const char* library : {"mpi", "hdf5"}) EXPECT_FALSE(json["libraries"][library].get<std::string>().empty());
  EXPECT_EQ(json["topology"]["hosts"], 2);
  EXPECT_EQ(json["topology"]["mesh"]["data"], 2);
  EXPECT_EQ(json["ranks"][1]["host"], "right");
  EXPECT_EQ(json["choices"]["matmul"], "a");
  EXPECT_EQ(json["started"].get<std::string>().size(), std::string("2025-01-01T00:00:00Z").size());
}

// Whatever call the process dies in and whatever the power takes: manifest.json is there, of the attempt before or of
// this one, and none that was ever there is lost.
TEST(Manifest, ACrashNeverLeavesARunWithoutOne) {
  std::int64_t calls = 1;
  for (std::int64_t crash = 1; crash <= calls + 1; ++crash) {
    for (unsigned seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(testing::Message() << "crash at call " << crash << ", seed " << seed);
      test::MemoryFiles memory;
      Manifest manifest = example(RunFolder::start(memory, "/r", Resume::kAuto));
      write_manifest(memory, "/r", manifest);
      manifest.attempt = 2;
      test::FaultyFiles faulty(memory);
      faulty.crash_at(crash);
      bool returned = false;
      try {
        write_manifest(faulty, "/r", manifest);
        returned = true;
      } catch (const test::SimulatedCrash&) {
      }
      calls = std::max(calls, faulty.changing_calls());
      std::mt19937 random(seed);
      memory.power_loss(random);
      ASSERT_TRUE(memory.exists("/r/manifest.json"));
      const std::int64_t left = read_earlier_attempt(memory, "/r").attempt;
      EXPECT_TRUE(left == 2 || (left == 1 && !returned)) << left;
      EXPECT_EQ(read_earlier_attempt(memory, "/r").run, manifest.run);
      if (left < 2) continue;
      EXPECT_EQ(nlohmann::json::parse(read_file(memory, "/r/manifest-0001.json", 1 << 20))["attempt"], 1);
    }
  }
  EXPECT_GE(calls, 10) << "both files are written and synced";
}

TEST(Machine, ReadsThisMachine) {
  const Machine machine = read_machine();
  EXPECT_FALSE(machine.host.empty());
  EXPECT_FALSE(machine.cpu.empty());
  EXPECT_GE(machine.cores, 1);
  EXPECT_GE(library_versions().size(), 2u);
}

}  // namespace
}  // namespace strake::launch
