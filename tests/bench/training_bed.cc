#include "tests/bench/training_bed.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <memory>
#include <utility>

#include "comm/threads/threads_world.h"
#include "data/byte_tokenizer.h"
#include "data/token_file_writer.h"
#include "launch/job/devices.h"
#include "runtime/base/check.h"
#include "runtime/base/random.h"
#include "runtime/device/cpu/cpu_device.h"
#include "tests/support/rank_threads.h"

namespace strake::bench {
namespace {

using std::chrono::steady_clock;

constexpr std::int64_t kTokens = 1 << 20;

std::filesystem::path token_path(const std::filesystem::path& folder) { return folder / "train.bin"; }

void write_tokens(const std::filesystem::path& path) {
  PosixFiles files;
  data::TokenFileWriter writer(files, path,
                               {.vocab = data::ByteTokenizer::kVocab,
                                .tokenizer = data::ByteTokenizer::identity(),
                                .source = "random numbers",
                                .crc32c = {}});
  const Philox random(random_key(1, "bench tokens"));
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < kTokens; ++i) {
    ids.push_back(static_cast<std::int32_t>(random.uniform(static_cast<std::uint64_t>(i)) *
                                            static_cast<double>(data::ByteTokenizer::kVocab)));
  }
  writer.append(ids);
  writer.finish();
  writer.publish();
}

}  // namespace

double milliseconds(Nanoseconds time) { return std::chrono::duration<double, std::milli>(time).count(); }

std::vector<double> wall_ms(const RankTrace& trace, std::size_t skip) {
  std::vector<double> out;
  for (std::size_t i = skip; i < trace.steps.size(); ++i) out.push_back(milliseconds(trace.steps[i].times.wall));
  return out;
}

std::vector<double> class_ms(const RankTrace& trace, StepClass step_class, std::size_t skip) {
  std::vector<double> out;
  for (std::size_t i = skip; i < trace.steps.size(); ++i) {
    out.push_back(milliseconds(trace.steps[i].times.of(step_class)));
  }
  return out;
}

TrainingBed::TrainingBed() {
  std::string name = (std::filesystem::temp_directory_path() / "strake-bench-XXXXXX").string();
  STRAKE_CHECK(mkdtemp(name.data()) != nullptr, "cannot make a scratch folder");
  folder_ = name;
  write_tokens(token_path(folder_));
}

TrainingBed::~TrainingBed() {
  std::error_code ignored;  // what stays behind in the scratch folder harms nobody
  std::filesystem::remove_all(folder_, ignored);
}

std::vector<RankTrace> TrainingBed::run(const RunSetup& setup) {
  launch::Config config = setup.config;
  config.run.dir = (folder_ / fmt::format("run-{}", runs_++)).string();
  config.data.train = {token_path(folder_).string()};
  config.train.deterministic = setup.gpus;

  comm::ThreadsWorld world(setup.ranks);
  std::vector<RankTrace> traces(static_cast<std::size_t>(setup.ranks));
  test::run_ranks(world, [&](int rank) {
    RankTrace& trace = traces[static_cast<std::size_t>(rank)];
    const std::unique_ptr<Device> base = setup.gpus ? gpus_(rank) : make_cpu_device();
    test::FaultyDevice device(*base);
    const auto control = world.make_control(rank);
    auto communicator = launch::make_communicator(device, *control, world.make_communicator(rank), setup.config.comm);
    if (setup.wrap_communicator) communicator = setup.wrap_communicator(rank, std::move(communicator));
    PosixFiles files;

    launch::Trainer* trainer = nullptr;
    steady_clock::time_point started;
    launch::TrainHooks hooks;
    if (setup.wrap_source) {
      hooks.wrap_train_source = [&](data::TokenSource& source) { return setup.wrap_source(rank, source); };
    }
    hooks.before_first_step = [&](launch::Trainer& made) {
      trainer = &made;
      for (const comm::Bucket& bucket : made.buckets().buckets) {
        trace.bucket_bytes.push_back(bucket.elems() * static_cast<std::int64_t>(size_bytes(made.buckets().wire)));
      }
      if (setup.before_first_step) setup.before_first_step(rank, made, device);
    };
    hooks.before_step = [&](std::int64_t step) {
      if (setup.before_step) setup.before_step(rank, *trainer, step);
      if (step == 0) started = steady_clock::now();
    };
    hooks.on_report = [&](const launch::StepReport& report) {
      trace.steps.push_back(report);
      trace.host_time = steady_clock::now() - started;
      if (setup.on_report) setup.on_report(rank, report);
    };
    launch::train_rank(config, {device, *communicator, *control, files, Logger(rank, setup.ranks, LogLevel::kWarning)},
                       hooks, {"bench"});
  });
  return traces;
}

}  // namespace strake::bench
