#include "launch/bench/bench_job.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "data/token_file_writer.h"
#include "launch/job/agreement.h"
#include "launch/job/random_tokens.h"
#include "launch/job/signals.h"
#include "launch/train/train.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/random.h"

namespace strake::launch {
namespace {

void write_tokens(Files& files, const std::filesystem::path& path, RandomTokens tokens, std::int64_t vocab) {
  constexpr std::int64_t kAtOnce = 1 << 16;
  data::TokenFileInfo info;
  info.vocab = vocab;
  info.type = info.vocab <= 1 << 16 ? data::TokenType::kU16 : data::TokenType::kU32;
  info.source = "random ids, by strake bench";
  data::TokenFileWriter writer(files, path, info);
  std::vector<std::int32_t> ids;
  for (std::int64_t begin = 0; begin < tokens.tokens(); begin += kAtOnce) {
    ids.resize(static_cast<std::size_t>(std::min(kAtOnce, tokens.tokens() - begin)));
    tokens.read(begin, ids);
    writer.append(ids);
  }
  writer.finish();
  writer.publish();
}

}  // namespace

Config load_bench_config(const std::string& path, const std::vector<std::string>& overrides, bool random_data) {
  std::vector<std::string> all{"checkpoint.at_end=false", "checkpoint.keep_best=0", "eval.every=0", "data.val="};
  const bool checkpoints_by_time = std::any_of(overrides.begin(), overrides.end(), [](const std::string& each) {
    return each.starts_with("checkpoint.every_minutes=");
  });
  if (!checkpoints_by_time) all.emplace_back("checkpoint.every=0");  // else the two contradict each other
  all.insert(all.end(), overrides.begin(), overrides.end());
  return load_config_with_tokens(path, std::move(all), random_data);
}

BenchFolder::BenchFolder(Files& files, const Config& config, comm::Control& control)
    : files_(files), leads_(control.rank() == 0) {
  agree(control, [&] {
    if (!leads_) return;
    std::filesystem::path run = std::filesystem::path(config.run.dir).lexically_normal();
    if (!run.has_filename()) run = run.parent_path();  // "run/": beside it, not in it
    const auto now = std::chrono::system_clock::now().time_since_epoch().count();
    path_ = fmt::format("{}.bench-{:08x}", run.string(),
                        random_key(static_cast<std::uint64_t>(getpid()), std::to_string(now)) >> 32);
    files_.make_directories(path_);
  });
  path_ = control.broadcast(path_.string(), 0);
}

BenchFolder::~BenchFolder() {
  if (!leads_) return;
  try {
    files_.remove_all(path_);
  } catch (const std::exception& error) {
    Logger().warning("the bench's folder stays behind: {}", error.what());
  }
}

Config BenchFolder::run_of(const Config& config, std::int64_t steps, comm::Control& control) const {
  Config run = config;
  run.run.dir = (path_ / "run").string();
  run.checkpoint.resume = Resume::kAuto;
  run.train.steps = steps;
  run.train.stop_at = 0;
  if (!asks_for_random_tokens(config)) return run;
  const std::filesystem::path tokens = path_ / "random.bin";
  run.data.train = {tokens.string()};
  agree(control, [&] {
    if (leads_) write_tokens(files_, tokens, RandomTokens(run), run.model.vocab);
  });
  return run;
}

void end_if_stopped_by(int signal) {
  if (signal == 0) return;
  throw AgreedError(ExitCode::kInterrupted, fmt::format("stopped by {}: nothing was measured", name_of_signal(signal)));
}

}  // namespace strake::launch
