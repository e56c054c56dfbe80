// Which checkpoints stay: the rule that runs and `strake ckpt prune` share.
#include "checkpoint/retention.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <random>

#include "checkpoint/directory.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/memory_files.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::MemoryFiles;
using test::options_in;

const fs::path kRetained = "/run/ckpt";
constexpr std::int64_t kNobody = -1;

// A checkpoint as if it had been written behind an evaluation.
void give_loss(Files& files, std::int64_t step, double loss) {
  const fs::path folder = kRetained / step_name(step);
  Manifest manifest = read_manifest(files, folder);
  manifest.meta.held_out_loss = loss;
  write_file_durably(files, folder / kManifestName, serialize(manifest));
}

void save_with_losses(Files& files, const std::vector<std::pair<std::int64_t, double>>& steps) {
  Options options = options_in(kRetained);
  options.keep = 100;
  std::vector<std::int64_t> all;
  for (const auto& [step, loss] : steps) all.push_back(step);
  ASSERT_TRUE(test::all_done(test::save_steps(files, 1, options, all)));
  for (const auto& [step, loss] : steps) {
    if (loss > 0) give_loss(files, step, loss);
  }
}

// What stays, newest first.
std::vector<std::int64_t> steps_kept(Files& files, const Retention& rule, std::int64_t spared = kNobody) {
  std::vector<std::int64_t> steps;
  for (const Judged& each : judge(files, kRetained, rule, spared)) {
    if (each.fate != Fate::kGoes) steps.push_back(each.step);
  }
  return steps;
}

using Steps = std::vector<std::int64_t>;

TEST(Retention, KeepsTheNewestThoseOfEverySoManyAndTheBest) {
  MemoryFiles files;
  save_with_losses(files, {{10, 3.0}, {15, 0}, {20, 1.5}, {25, 1.0}, {30, 2.0}, {35, 1.5}, {40, 9.0}});
  EXPECT_EQ(steps_kept(files, {.keep = 1}), (Steps{40}));
  EXPECT_EQ(steps_kept(files, {.keep = 3}), (Steps{40, 35, 30}));
  EXPECT_EQ(steps_kept(files, {.keep = 1, .keep_every = 20}), (Steps{40, 20}));
  EXPECT_EQ(steps_kept(files, {.keep = 1, .keep_every = 15}), (Steps{40, 30, 15}));
  EXPECT_EQ(steps_kept(files, {.keep = 1, .keep_best = 1}), (Steps{40, 25}));
  EXPECT_EQ(steps_kept(files, {.keep = 1, .keep_best = 2}), (Steps{40, 35, 25})) << "of equal losses the newer";
  EXPECT_EQ(steps_kept(files, {.keep = 1, .keep_best = 100}), (Steps{40, 35, 30, 25, 20, 10})) << "15 has no loss";
  EXPECT_EQ(steps_kept(files, {.keep = 1, .keep_every = 20, .keep_best = 1}, 10), (Steps{40, 25, 20, 10}));
  EXPECT_EQ(steps_kept(files, {.keep = 100}).size(), 7u);
}

TEST(Retention, WhatIsNotWholeCountsForNothing) {
  MemoryFiles files;
  save_with_losses(files, {{10, 1.0}, {20, 2.0}, {30, 0.5}, {40, 3.0}});
  files.remove(kRetained / step_name(40) / "rank-0000.h5");
  EXPECT_EQ(steps_kept(files, {.keep = 1}), (Steps{40, 30})) << "the damaged newest is its run's to set aside";
  files.open(kRetained / step_name(30) / "rank-0000.h5", OpenMode::kUpdate)->truncate(7);
  EXPECT_EQ(steps_kept(files, {.keep = 1, .keep_best = 1}), (Steps{40, 30, 20, 10})) << "30 had the best loss";
  for (const std::int64_t step : {20, 10}) files.remove(kRetained / step_name(step) / kManifestName);
  EXPECT_EQ(steps_kept(files, {.keep = 1}).size(), 4u) << "none is whole: none goes";
}

TEST(Retention, RemovesWhatGoesAndNothingElse) {
  MemoryFiles files;
  save_with_losses(files, {{10, 1.0}, {20, 2.0}, {30, 3.0}});
  files.make_directories(kRetained / "notes");
  remove_retired(files, kRetained, judge(files, kRetained, {.keep = 1, .keep_best = 1}, kNobody), nullptr);
  EXPECT_EQ(committed_steps(files, kRetained), (Steps{30, 10}));
  EXPECT_TRUE(files.exists(kRetained / "notes"));
  for (const std::int64_t step : {30, 10}) verify_checkpoint(files, kRetained / step_name(step));
}

// A run saves step 40 where 10 is the best, dies at a call, and the machine loses power: at every instant the best is
// there and whole, and so is the newest that was durable.
TEST(Retention, ACrashAnywhereLeavesTheBestAndTheNewest) {
  const auto run = [](MemoryFiles& memory, std::int64_t crash) {
    save_with_losses(memory, {{10, 1.0}, {20, 2.0}, {30, 3.0}});
    test::FaultyFiles faulty(memory);
    faulty.crash_at(crash);
    Options options = options_in(kRetained);
    options.keep = 1;
    options.keep_best = 1;
    test::save_steps(faulty, 1, options, {40});
    return faulty.changing_calls();
  };
  std::int64_t calls = 0;
  {
    MemoryFiles memory;
    calls = run(memory, 0);
    ASSERT_EQ(committed_steps(memory, kRetained), (Steps{40, 10})) << "20 and 30 are retired, 10 is not";
  }
  for (std::int64_t crash = 1; crash <= calls; ++crash) {
    SCOPED_TRACE(fmt::format("crash at call {}", crash));
    MemoryFiles memory;
    run(memory, crash);
    std::mt19937 random(static_cast<unsigned>(crash));
    memory.power_loss(random);
    const Steps left = committed_steps(memory, kRetained);
    ASSERT_TRUE(std::ranges::count(left, 10) == 1) << fmt::format("{}", left);
    ASSERT_TRUE(left.front() == 30 || left.front() == 40) << fmt::format("{}", left);
    for (const std::int64_t step : left) verify_checkpoint(memory, kRetained / step_name(step));
  }
}

}  // namespace
}  // namespace strake::checkpoint
