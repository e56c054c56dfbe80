// What a checkpoint must keep beside weights so that a run goes on as if it had never ended: for each part, that it
// would be missed. And the line of a step that a kill left out, which the checkpoint knows.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "checkpoint/directory.h"
#include "checkpoint/manifest.h"
#include "data/data_cursor.h"
#include "launch/run/metrics.h"
#include "launch/run/run_folder.h"
#include "launch/run/step_numbers.h"
#include "runtime/io/crc32c.h"
#include "runtime/io/forwarding_files.h"
#include "tests/integration/small_job.h"

namespace strake::test {
namespace {

namespace fs = std::filesystem;

constexpr int kKeptRanks = 2;
constexpr std::int64_t kCut = 6, kAll = 12;

launch::Config kept_config(SmallJob& job, models::Shard shard) {
  launch::Config config = job.config(kKeptRanks, 1, 2, kAll);
  config.comm.bucket_mib = 0.008;
  config.train.shard = shard;
  config.checkpoint.every = 3;
  config.checkpoint.keep = 100;
  config.checkpoint.strategy = launch::CheckpointStrategy::kSync;
  return config;
}

// `files`: of rank 0; null: the operating system's.
void run_kept(const launch::Config& config, Files* files = nullptr) {
  run_threads(config, kKeptRanks, [&](int rank, const RunRank& run) {
    const auto device = make_cpu_device();
    run({.device = device.get(), .files = rank == 0 ? files : nullptr});
  });
}

fs::path kept_checkpoint(const launch::Config& config, std::int64_t step) {
  return launch::checkpoint_folder(config.run.dir) / checkpoint::step_name(step);
}

// The lines of steps in a run's metrics, as they stand there.
std::multimap<std::int64_t, nlohmann::json> step_lines(const launch::Config& config) {
  PosixFiles files;
  std::istringstream text(read_file(files, launch::metrics_path(config.run.dir), 1 << 26));
  std::multimap<std::int64_t, nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (entry.contains("loss")) lines.emplace(entry.at("step"), entry);
  }
  return lines;
}

// What the run has in another way than the uncut one: its losses, norms and rates, the steps that have a line, and what
// its last checkpoint says. Empty: nothing.
std::string differences_of(const launch::Config& config, const launch::Config& uncut) {
  PosixFiles files;
  const auto lines = step_lines(config), expected = step_lines(uncut);
  std::string found;
  const auto differs = [&](const std::string& what) {
    if (found.find(what) == found.npos) found += (found.empty() ? "" : ", ") + what;
  };
  for (const auto& [step, line] : expected) {
    const auto mine = lines.find(step);
    if (mine == lines.end()) {
      differs(fmt::format("no line of step {}", step));
      continue;
    }
    for (const char* what : {"loss", "grad_norm", "lr"}) {
      if (mine->second.at(what) != line.at(what)) differs(what);
    }
  }
  const checkpoint::Meta mine = checkpoint::verify_checkpoint(files, kept_checkpoint(config, kAll)).meta;
  const checkpoint::Meta other = checkpoint::verify_checkpoint(files, kept_checkpoint(uncut, kAll)).meta;
  if (mine.tokens != other.tokens) differs("tokens");
  if (mine.data_cursor != other.data_cursor) differs("samples");
  if (mine.step_metrics != other.step_metrics) differs("numbers of the last step");
  return found;
}

// ---- Each part is needed.

using Forget = std::function<void(checkpoint::Manifest& manifest, const fs::path& folder)>;

// A program that did not keep these tensors would begin with zeros.
Forget tensors(const std::string& prefix) {
  return [prefix](checkpoint::Manifest& manifest, const fs::path& folder) {
    PosixFiles files;
    std::vector<std::string> contents;
    for (const checkpoint::FileRecord& record : manifest.files)
      contents.push_back(read_file(files, folder / record.name, 1 << 26));
    for (const checkpoint::TensorRecord& tensor : manifest.tensors) {
      if (!tensor.name.starts_with(prefix)) continue;
      for (const checkpoint::ShardRecord& shard : tensor.shards) {
        const std::size_t bytes = static_cast<std::size_t>(shard.elems) * size_bytes(tensor.dtype);
        contents[shard.file].replace(shard.offset_bytes, bytes, bytes, '\0');
      }
    }
    for (std::size_t i = 0; i < contents.size(); ++i) {
      checkpoint::FileRecord& record = manifest.files[i];
      for (std::size_t chunk = 0; chunk < record.chunk_crcs.size(); ++chunk) {
        record.chunk_crcs[chunk] =
            crc32c(bytes_of(std::string_view(contents[i]).substr(chunk * record.chunk_bytes, record.chunk_bytes)));
      }
      files.open(folder / record.name, OpenMode::kUpdate)->write(bytes_of(contents[i]), 0);
    }
  };
}

struct Part {
  const char* name;
  Forget forget;
  const char* missed;  // what differs then, among others
};

const Part kParts[] = {
    {"nothing", [](checkpoint::Manifest&, const fs::path&) {}, ""},
    {"the weights", tensors("param/"), "loss"},
    {"first moments", tensors("adam_m/"), "loss"},
    {"second moments", tensors("adam_v/"), "loss"},
    // Which step it is: the place in the schedule of learning rates, and the correction of young moments.
    {"the step", [](checkpoint::Manifest& manifest, const fs::path&) { manifest.meta.step = 0; }, "loss"},
    {"the place in the data",
     [](checkpoint::Manifest& manifest, const fs::path&) {
       data::DataCursor cursor = data::cursor_from_json(manifest.meta.data_cursor);
       cursor.next_sample = 0;
       manifest.meta.data_cursor = data::to_json(cursor);
     },
     "samples"},
    {"the tokens seen", [](checkpoint::Manifest& manifest, const fs::path&) { manifest.meta.tokens = 0; }, "tokens"},
    {"the numbers of the step",
     [](checkpoint::Manifest& manifest, const fs::path&) { manifest.meta.step_metrics.clear(); }, "no line of step 6"},
};

class KeptState : public testing::TestWithParam<models::Shard> {};
INSTANTIATE_TEST_SUITE_P(Shards, KeptState, testing::Values(models::Shard::kNone, models::Shard::kOptimizer),
                         [](const auto& shard) {
                           return shard.param == models::Shard::kNone ? "replicated" : "sharded";
                         });

TEST_P(KeptState, EachPartIsMissedWhereItIsForgotten) {
  SmallJob job;
  const launch::Config uncut = kept_config(job, GetParam());
  run_kept(uncut);
  launch::Config cut = kept_config(job, GetParam());
  cut.train.stop_at = kCut;
  run_kept(cut);
  // As if it had been killed behind the commit of its last checkpoint: the line of that step is not there.
  PosixFiles files;
  const fs::path metrics = launch::metrics_path(cut.run.dir);
  const std::string lines = read_file(files, metrics, 1 << 26);
  const std::size_t last = lines.find(fmt::format("{{\"step\": {}, \"attempt\": 1, \"loss\"", kCut));
  ASSERT_NE(last, lines.npos);
  fs::resize_file(metrics, last);

  for (const Part& part : kParts) {
    SCOPED_TRACE(part.name);
    launch::Config config = kept_config(job, GetParam());
    fs::copy(cut.run.dir, config.run.dir, fs::copy_options::recursive);
    const fs::path folder = kept_checkpoint(config, kCut);
    checkpoint::Manifest manifest = checkpoint::verify_checkpoint(files, folder);
    part.forget(manifest, folder);
    files.open(folder / checkpoint::kManifestName, OpenMode::kReplace)->write(bytes_of(serialize(manifest)), 0);
    for (const std::int64_t step : {std::int64_t{3}, kCut}) {
      if (step != manifest.meta.step && kept_checkpoint(config, step) != folder)
        fs::remove_all(kept_checkpoint(config, step));
    }
    if (manifest.meta.step != kCut) fs::rename(folder, kept_checkpoint(config, manifest.meta.step));
    config.checkpoint.resume = launch::Resume::kMust;
    run_kept(config);
    const std::string missed = differences_of(config, uncut);
    if (std::string_view(part.missed).empty()) {
      EXPECT_EQ(missed, "");
    } else {
      EXPECT_NE(missed.find(part.missed), missed.npos) << missed;
    }
  }
}

// ---- The line of the checkpoint's own step.

struct Killed : std::exception {
  const char* what() const noexcept override { return "killed"; }
};

// The process dies when the checkpoint of `step` has become durable, and before it knows.
class DiesBehind final : public ForwardingFiles {
 public:
  explicit DiesBehind(std::int64_t step) : ForwardingFiles(posix_), name_(checkpoint::step_name(step)) {}

  void rename(const fs::path& from, const fs::path& to) override {
    ForwardingFiles::rename(from, to);
    committed_ = committed_ || to.filename() == name_;
  }
  void sync_directory(const fs::path& path) override {
    ForwardingFiles::sync_directory(path);
    if (committed_) throw Killed();
  }

 private:
  PosixFiles posix_;
  const std::string name_;
  bool committed_ = false;
};

TEST(StepLine, ThatAKillLeftOutIsWrittenByTheNextStart) {
  SmallJob job;
  const launch::Config uncut = kept_config(job, models::Shard::kNone);
  run_kept(uncut);
  const auto expected = step_lines(uncut);
  ASSERT_EQ(expected.size(), static_cast<std::size_t>(kAll));
  for (const std::int64_t step : {std::int64_t{3}, kCut, kAll}) {  // the last one too: nothing is trained behind it
    SCOPED_TRACE(fmt::format("killed behind step {}", step));
    launch::Config config = kept_config(job, models::Shard::kNone);
    DiesBehind disk(step);
    testing::internal::CaptureStderr();
    EXPECT_THROW(run_kept(config, &disk), std::exception);
    testing::internal::GetCapturedStderr();
    PosixFiles files;
    ASSERT_EQ(checkpoint::committed_steps(files, launch::checkpoint_folder(config.run.dir)).front(), step);
    ASSERT_EQ(step_lines(config).count(step), 0u) << "the kill came too late to leave a hole";

    for (int start = 0; start < 2; ++start) {  // the second finds everything done, and the line there
      run_kept(config);
      const auto lines = step_lines(config);
      ASSERT_EQ(lines.size(), expected.size());
      auto line = lines.begin();
      for (const auto& [number, other] : expected) {
        EXPECT_EQ(line->first, number);
        for (const char* what : {"loss", "grad_norm", "lr"}) EXPECT_EQ(line->second.at(what), other.at(what)) << number;
        EXPECT_EQ(line->second.at("attempt"), number <= step ? 1 : 2) << number;
        EXPECT_EQ(line->second.at("step_ms").is_null(), number == step) << number;
        ++line;
      }
    }
    // Readers take it for what it is: a step whose times nobody knows.
    const launch::Metrics metrics = launch::read_metrics(files, launch::metrics_path(config.run.dir));
    const launch::StepMetrics& restored = metrics.steps.at(static_cast<std::size_t>(step) - 1);
    EXPECT_EQ(restored.wall.count(), 0);
    EXPECT_TRUE(std::isnan(restored.tokens_per_s));
  }
}

}  // namespace
}  // namespace strake::test
