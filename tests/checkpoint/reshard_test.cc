// Loading on another number of ranks and in other cuts: the same bytes, each read about once, and nothing is written to
// device memory before all of them are proven.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <optional>
#include <random>

#include "checkpoint/checkpointer.h"
#include "checkpoint/load_plan.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/counting_files.h"
#include "tests/support/memory_files.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::CountingFiles;
using test::MemoryFiles;
using test::options_in;
using test::RankEnd;
using test::SyntheticRank;
using test::SyntheticTensor;

// ---- How ranks share a state. The same tensors in each: another number of ranks may load them in other cuts.

enum class Cuts { kReplicated, kOptimizer, kTensorAndExpert };
constexpr std::array kCuts{Cuts::kReplicated, Cuts::kOptimizer, Cuts::kTensorAndExpert};

// A cut of `rows` rows of `columns` between `parts`, as even as whole rows allow.
SyntheticTensor::Held rows_of(int part, int parts, std::int64_t rows, std::int64_t columns, bool replicated) {
  return {rows * part / parts * columns, rows * (part + 1) / parts * columns, replicated};
}

// Nothing divides by a number of ranks; the smallest tensor has fewer elements than there are ranks.
std::vector<SyntheticTensor> state_in(Cuts cuts) {
  std::vector<SyntheticTensor> tensors{
      {"param/wte", DType::kF32, {103, 13}},      {"param/norm", DType::kF32, {5}},
      {"param/h.0.qkv", DType::kF32, {101, 53}},  {"half/h.0.qkv", DType::kBF16, {101, 53}},
      {"adam_m/h.0.qkv", DType::kF64, {101, 53}}, {"count", DType::kI64, {1}}};
  constexpr int kExperts = 5;
  for (int expert = 0; expert < kExperts; ++expert)
    tensors.push_back({fmt::format("param/h.0.expert.{}", expert), DType::kF32, {29, 31}});
  for (SyntheticTensor& tensor : tensors) {
    if (cuts == Cuts::kOptimizer) tensor.partitioned = true;
    if (cuts != Cuts::kTensorAndExpert) continue;
    const std::int64_t rows = tensor.shape.front(), columns = tensor.elems() / rows;
    if (tensor.name.find("expert") != tensor.name.npos) {
      // Each expert belongs to one group of ranks, which hold it alike; others hold nothing of it.
      tensor.held = [=, expert = tensor.name.back() - '0'](int rank, int ranks) {
        const int groups = std::min(ranks, 3);
        return rank % groups == expert % groups ? rows_of(0, 1, rows, columns, true) : SyntheticTensor::Held{};
      };
    } else if (tensor.shape.size() == 2) {
      // Rows are cut between neighbours, and each cut is held by every other pair or four of them.
      tensor.held = [=](int rank, int ranks) {
        const int parts = ranks % 4 == 0 ? 4 : ranks % 2 == 0 ? 2 : 1;
        return rows_of(rank % parts, parts, rows, columns, true);
      };
    }
  }
  return tensors;
}

// ---- Saving and loading them.

struct RankLoad {
  LoadReport report;
  std::int64_t opens = 0, reads = 0;
  std::uint64_t read_bytes = 0;
};
struct Loaded {
  std::vector<RankEnd> ends;
  bool exact = true;
  std::vector<RankLoad> ranks;

  std::uint64_t read_bytes() const {
    return std::accumulate(ranks.begin(), ranks.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const RankLoad& rank) { return sum + rank.read_bytes; });
  }
  std::int64_t opens() const {
    return std::accumulate(ranks.begin(), ranks.end(), std::int64_t{0},
                           [](std::int64_t sum, const RankLoad& rank) { return sum + rank.opens; });
  }
};

enum class Passes { kYes, kNo };

#ifdef STRAKE_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
constexpr std::int64_t kReshardedStep = 7;
constexpr std::int64_t kUntouched = 999'999;

Options with_chunks(const fs::path& folder, std::uint64_t chunk_bytes = kMinChunkBytes) {
  Options options = options_in(folder);
  options.write.chunk_bytes = chunk_bytes;
  return options;
}

void save(Files& files, int ranks, const std::vector<SyntheticTensor>& tensors, const Options& options) {
  const auto ends = test::run_ranks(ranks, [&](int rank, comm::Control& control) {
    SyntheticRank state(rank, ranks, tensors);
    auto checkpointer = state.make_checkpointer(files, control, options);
    state.save(*checkpointer, kReshardedStep);
  });
  ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
}

// `save_to`: what was loaded is saved there again; empty: it is not.
Loaded load(Files& files, int ranks, const std::vector<SyntheticTensor>& tensors, const Options& options, Passes passes,
            const fs::path& save_to = {}) {
  Loaded loaded;
  loaded.ranks.resize(static_cast<std::size_t>(ranks));
  std::vector<char> exact(static_cast<std::size_t>(ranks), 0);
  loaded.ends = test::run_ranks_of_world(ranks, [&](int rank, comm::Control& control, comm::ThreadsWorld& world) {
    const auto index = static_cast<std::size_t>(rank);
    CountingFiles counted(files, [](const std::string& name) { return name.starts_with("rank-"); });
    SyntheticRank state(rank, ranks, tensors);
    const auto communicator = world.make_communicator(rank);
    const auto comm = state.device().make_stream("comm", StreamPriority::kHigh);
    const auto checkpointer = state.make_checkpointer(counted, control, options);
    state.advance_to(kUntouched);
    state.compute().synchronize();
    std::optional<Exchange> exchange;
    if (passes == Passes::kYes) exchange.emplace(*communicator, *comm);
    try {
      const auto meta = checkpointer->load_newest(test::model_text(), exchange);
      exact[index] = meta.has_value() && meta->step == kReshardedStep && state.holds(kReshardedStep);
    } catch (const Error&) {
      exact[index] = state.holds(kUntouched);
      throw;
    }
    loaded.ranks[index] = {checkpointer->loaded(), counted.opens(), counted.reads(), counted.read_bytes()};
    if (save_to.empty()) return;
    // What was loaded, not what an update computed.
    Event ready = state.device().make_event("loaded");
    state.compute().record(ready);
    Arena host("staging", MemoryKind::kHost);
    Checkpointer to(files, control, state.device(), state.copy_out(), {host}, state.table(), with_chunks(save_to));
    host.allocate(state.device());
    to.save(ready, test::meta_at(kReshardedStep));
  });
  for (const char each : exact) loaded.exact = loaded.exact && each != 0;
  return loaded;
}

std::uint64_t bytes_of_files(Files& files, const fs::path& folder) {
  return read_manifest(files, folder / step_name(kReshardedStep)).total_bytes();
}

// ---- Bytes.

class Reshard : public ::testing::TestWithParam<std::tuple<int, int>> {};
constexpr std::array kReshardedWorlds{1, 2, 3, 4, 8};
INSTANTIATE_TEST_SUITE_P(Ranks, Reshard,
                         ::testing::Combine(::testing::ValuesIn(kReshardedWorlds),
                                            ::testing::ValuesIn(kReshardedWorlds)));

// What N ranks saved in some cuts, M ranks load in others and save, and N ranks load again in the first: the same bytes
// each time, those of the files too.
TEST_P(Reshard, IsExactForAnyNumberOfRanksAndAnyCuts) {
  const auto [n, m] = GetParam();
  for (std::size_t i = 0; i < kCuts.size(); ++i) {
    for (std::size_t shift = 0; shift < kCuts.size(); ++shift) {
      // Each to itself, and to others in turn.
      const bool in_turn = shift == (i + static_cast<std::size_t>(n + m)) % kCuts.size();
      if (!in_turn && (shift != 0 || kSanitized)) continue;
      SCOPED_TRACE(fmt::format("cuts {} to {}", i, (i + shift) % kCuts.size()));
      const auto from = state_in(kCuts[i]), to = state_in(kCuts[(i + shift) % kCuts.size()]);
      MemoryFiles files;
      save(files, n, from, with_chunks("/run/ckpt"));
      const Loaded there = load(files, m, to, with_chunks("/run/ckpt"), Passes::kYes, "/run/there");
      ASSERT_TRUE(test::all_done(there.ends)) << test::describe(there.ends);
      EXPECT_TRUE(there.exact);
      const Loaded back = load(files, n, from, with_chunks("/run/there"), Passes::kYes, "/run/back");
      ASSERT_TRUE(test::all_done(back.ends)) << test::describe(back.ends);
      EXPECT_TRUE(back.exact);
      // A file for each rank that wrote, and the round trip leaves what it began with.
      EXPECT_EQ(files.list("/run/there" / fs::path(step_name(kReshardedStep))).size(), static_cast<std::size_t>(m) + 1);
      for (const std::string& name : files.list("/run/ckpt" / fs::path(step_name(kReshardedStep)))) {
        EXPECT_EQ(read_file(files, "/run/ckpt" / fs::path(step_name(kReshardedStep)) / name, 1 << 26),
                  read_file(files, "/run/back" / fs::path(step_name(kReshardedStep)) / name, 1 << 26))
            << name;
      }
    }
  }
}

// ---- What is read for that.

// Each byte about once, and a rank opens the files in which its part lies: with one more open for each rank, all ranks
// together open every file once.
TEST(Loading, ReadsEachByteAboutOnce) {
  for (const Cuts cuts : kCuts) {
    for (const auto& [n, m] : {std::pair(8, 8), std::pair(8, 3), std::pair(3, 8), std::pair(1, 8), std::pair(8, 1)}) {
      SCOPED_TRACE(fmt::format("cuts {}, {} ranks to {}", static_cast<int>(cuts), n, m));
      MemoryFiles files;
      save(files, n, state_in(cuts), with_chunks("/run/ckpt"));
      const Loaded loaded = load(files, m, state_in(cuts), with_chunks("/run/ckpt"), Passes::kYes);
      ASSERT_TRUE(test::all_done(loaded.ends)) << test::describe(loaded.ends);
      ASSERT_TRUE(loaded.exact);
      const std::uint64_t all = bytes_of_files(files, "/run/ckpt");
      EXPECT_GE(loaded.read_bytes(), all) << "every byte is verified";
      // Two ranks may need the chunk in which their parts meet: for each tensor that is cut, at each of its cuts.
      EXPECT_LE(loaded.read_bytes(), cuts == Cuts::kReplicated ? all + all / 4 : 2 * all);
      if (n == m) {
        EXPECT_LE(loaded.read_bytes(), all + all / 10) << "its own file, and none of another's";
      }
      for (const RankLoad& rank : loaded.ranks) {
        EXPECT_EQ(rank.report.read_bytes, rank.read_bytes);
        EXPECT_EQ(rank.report.files, static_cast<std::size_t>(rank.opens));
        // Experts lie with their owners, whichever rank that was.
        if (cuts != Cuts::kTensorAndExpert) {
          EXPECT_LE(rank.opens, (n + m - 1) / m + 1);
        }
      }
      if (cuts != Cuts::kTensorAndExpert) {
        EXPECT_LE(loaded.opens(), n + m - 1);
      }
    }
  }
}

// Without a way to pass on what all hold, each rank reads all of it, once, and its own part a first time with the
// others: no more than that.
TEST(Loading, WithoutAnExchangeEachRankReadsWhatItHolds) {
  MemoryFiles files;
  save(files, 2, state_in(Cuts::kReplicated), with_chunks("/run/ckpt"));
  const std::uint64_t all = bytes_of_files(files, "/run/ckpt");
  for (const Passes passes : {Passes::kYes, Passes::kNo}) {
    const Loaded loaded = load(files, 4, state_in(Cuts::kReplicated), with_chunks("/run/ckpt"), passes);
    ASSERT_TRUE(test::all_done(loaded.ends)) << test::describe(loaded.ends);
    EXPECT_TRUE(loaded.exact);
    EXPECT_EQ(loaded.ranks.front().report.passed_on, passes == Passes::kYes);
    EXPECT_LE(loaded.read_bytes(), (passes == Passes::kYes ? 1 : 4) * all + all / 4);
    EXPECT_GE(loaded.read_bytes(), passes == Passes::kYes ? all : 3 * all);
  }
}

// Chunks that lie one behind the other are read at once.
TEST(Loading, ReadsAreCoalesced) {
  MemoryFiles files;
  const std::vector<SyntheticTensor> tensors{{"large", DType::kF32, {1000, 1003}}, {"small", DType::kF32, {3}}};
  save(files, 1, tensors, with_chunks("/run/ckpt"));
  const Loaded loaded = load(files, 2, tensors, with_chunks("/run/ckpt"), Passes::kYes);
  ASSERT_TRUE(loaded.exact);
  ASSERT_GT(read_manifest(files, fs::path("/run/ckpt") / step_name(kReshardedStep)).files.front().chunk_crcs.size(),
            3000u);
  for (const RankLoad& rank : loaded.ranks) EXPECT_LE(rank.reads, 4);
}

TEST(Loading, OnSeveralThreadsGivesTheSame) {
  MemoryFiles files;
  // Of several reads for each rank: 8 MiB and more.
  const std::vector<SyntheticTensor> tensors{
      {"large", DType::kF32, {3001, 1003}}, {"small", DType::kF32, {3}}, {"other", DType::kF32, {3001, 1003}, true}};
  save(files, 2, tensors, with_chunks("/run/ckpt", 1 << 20));
  Options options = with_chunks("/run/ckpt", 1 << 20);
  options.read_threads = 3;
  EXPECT_TRUE(load(files, 1, tensors, options, Passes::kYes).exact);
  // The first damage in the order of files is the one that is told, whoever finds which.
  const fs::path folder = fs::path("/run/ckpt") / step_name(kReshardedStep);
  for (const auto& [name, chunk] : {std::pair("rank-0001.h5", 1), std::pair("rank-0000.h5", 10)})
    files.open(folder / name, OpenMode::kUpdate)->write(bytes_of("damage"), static_cast<std::uint64_t>(chunk) << 20);
  const Loaded refused = load(files, 1, tensors, options, Passes::kYes);
  EXPECT_NE(refused.ends.front().message.find("rank-0000.h5: checksum of chunk 10 "), std::string::npos)
      << refused.ends.front().message;
  EXPECT_TRUE(refused.exact) << "nothing was written to device memory";
}

// ---- What must not happen.

// A byte anywhere, of any file, also where no tensor lies: found by whichever rank reads there, and no rank has written
// a byte of its device memory.
TEST(Loading, AnyDamagedChunkIsFoundBeforeDeviceMemoryIsWritten) {
  for (const Cuts cuts : kCuts) {
    MemoryFiles whole;
    save(whole, 2, state_in(cuts), with_chunks("/run/ckpt", 4096));
    const fs::path folder = fs::path("/run/ckpt") / step_name(kReshardedStep);
    std::mt19937 random(static_cast<unsigned>(cuts) + 1);
    for (const FileRecord& record : read_manifest(whole, folder).files) {
      const std::string content = read_file(whole, folder / record.name, 1 << 26);
      for (std::size_t chunk = 0; chunk < record.chunk_crcs.size(); ++chunk) {
        if (kSanitized && chunk % 4 != static_cast<std::size_t>(cuts)) continue;
        const std::size_t begin = chunk * record.chunk_bytes;
        const std::size_t at = begin + random() % std::min<std::size_t>(record.chunk_bytes, content.size() - begin);
        SCOPED_TRACE(fmt::format("{}, byte {}", record.name, at));
        const std::byte damaged{static_cast<unsigned char>(content[at] ^ (1 << random() % 8))};
        whole.open(folder / record.name, OpenMode::kUpdate)->write(std::span(&damaged, 1), at);
        const Loaded loaded = load(whole, 1 + static_cast<int>(random() % 4), state_in(cuts),
                                   with_chunks("/run/ckpt", 4096), Passes::kYes);
        for (const RankEnd& end : loaded.ends) {
          EXPECT_EQ(end.code, ExitCode::kNoCheckpoint);
          EXPECT_NE(end.message.find(fmt::format("{}: checksum of chunk {} ", record.name, chunk)), std::string::npos)
              << end.message;
        }
        EXPECT_TRUE(loaded.exact) << "device memory was written";
        whole.rename("/run/ckpt/.bad-" + step_name(kReshardedStep), folder);
        whole.open(folder / record.name, OpenMode::kReplace)->write(bytes_of(content), 0);
      }
    }
  }
}

// ---- The plan itself.

std::vector<std::vector<HeldRange>> held_in(const std::vector<SyntheticTensor>& tensors, int ranks) {
  std::vector<std::vector<HeldRange>> held(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    for (const SyntheticTensor& tensor : tensors) {
      const SyntheticTensor::Held mine = tensor.held_by(rank, ranks);
      if (mine.begin_elems == mine.end_elems) continue;
      held[static_cast<std::size_t>(rank)].push_back({tensor.name, tensor.dtype, tensor.shape, mine.begin_elems,
                                                      mine.end_elems - mine.begin_elems, mine.replicated});
    }
  }
  return held;
}

// Of any world: each chunk of each file is somebody's, each byte of the state is read by one rank, from where the
// manifest has it, and inside of chunks that this rank reads.
TEST(LoadPlan, CoversEveryChunkAndEachByteOfTheStateOnce) {
  for (const Cuts saved : kCuts) {
    MemoryFiles files;
    save(files, 3, state_in(saved), with_chunks("/run/ckpt", 4096));
    const Manifest manifest = read_manifest(files, fs::path("/run/ckpt") / step_name(kReshardedStep));
    for (const Cuts cuts : kCuts) {
      for (const int ranks : {1, 2, 5, 8, 13}) {
        SCOPED_TRACE(fmt::format("cuts {} to {}, {} ranks", static_cast<int>(saved), static_cast<int>(cuts), ranks));
        const auto held = held_in(state_in(cuts), ranks);
        const auto planned = plan_shards(held);
        std::vector<std::vector<int>> readers;
        for (const FileRecord& record : manifest.files) readers.emplace_back(record.chunk_crcs.size(), 0);
        for (std::size_t rank = 0; rank < held.size(); ++rank) {
          std::vector<std::vector<char>> filled;
          for (const PlannedRange& range : planned[rank])
            filled.emplace_back(range.elems * size_bytes(held[rank][range.entry].dtype), 0);
          for (const FileReads& reads : plan_reads(manifest, held, planned, rank)) {
            EXPECT_TRUE(std::ranges::is_sorted(reads.chunks));
            for (const std::size_t chunk : reads.chunks) ++readers[reads.file][chunk];
            for (const ReadRange& range : reads.ranges) {
              const std::uint64_t chunk_bytes = manifest.files[reads.file].chunk_bytes;
              for (const std::uint64_t end : {range.offset_bytes, range.offset_bytes + range.length_bytes - 1})
                EXPECT_TRUE(std::ranges::binary_search(reads.chunks, end / chunk_bytes));
              for (std::uint64_t i = 0; i < range.length_bytes; ++i) ++filled[range.planned][range.planned_bytes + i];
            }
          }
          for (const std::vector<char>& range : filled) EXPECT_EQ(std::ranges::count(range, 1), std::ssize(range));
        }
        for (const std::vector<int>& of_file : readers) EXPECT_EQ(std::ranges::count(of_file, 0), 0);
      }
    }
  }
}

}  // namespace
}  // namespace strake::checkpoint
