// What collectives must say of themselves, for tests of any Communicator.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "runtime/device/recording.h"

namespace strake::comm {

// What each collective says of itself before it is enqueued: the same for every backend, so that plans, checkers and
// breakdowns do not depend on what carries the bytes.
inline void expect_declarations(Communicator& communicator) {
  const auto ranks = static_cast<double>(communicator.size());
  const double others = ranks - 1;
  Arena arena("planned", MemoryKind::kDevice);
  const auto elems = static_cast<std::int64_t>(communicator.size()) * 8;
  const Tensor whole = Tensor::reserve(arena, DType::kF32, {elems});
  const Tensor piece = Tensor::reserve(arena, DType::kBF16, {8});
  const Tensor pieces = Tensor::reserve(arena, DType::kBF16, {elems});
  // Uneven: one element to rank 0, two to rank 1, ...; of its own each rank keeps rank() + 1.
  std::vector<std::int64_t> send_elems(static_cast<std::size_t>(communicator.size()));
  std::iota(send_elems.begin(), send_elems.end(), 1);
  const std::vector<std::int64_t> recv_elems(send_elems.size(), communicator.rank() + 1);
  const std::int64_t most_elems = communicator.size() * std::int64_t{communicator.size()};
  const Tensor from = Tensor::reserve(arena, DType::kF32, {most_elems});
  const Tensor to = Tensor::reserve(arena, DType::kF32, {most_elems});
  const double sent_elems = ranks * (ranks + 1) / 2 - (communicator.rank() + 1);
  const int root = communicator.size() - 1;
  const bool sends = communicator.rank() == root;

  PlanDevice plan;
  const auto stream = plan.make_stream("comm", StreamPriority::kHigh);
  communicator.all_reduce(*stream, {"a", Phase::kComm}, whole);
  communicator.reduce_scatter(*stream, {"b", Phase::kBackward}, piece, pieces);
  communicator.all_gather(*stream, {"c", Phase::kComm}, pieces, piece);
  communicator.broadcast(*stream, {"d", Phase::kComm}, piece, root);
  communicator.all_to_all(*stream, {"e", Phase::kComm}, to, recv_elems, from, send_elems);
  communicator.barrier(*stream, {"f", Phase::kComm});

  struct Declared {
    std::string name, kernel;
    Phase phase;
    std::vector<Tensor> reads, writes;
    double flops, bytes;
  };
  const std::vector<Tensor> none, handed_on{piece};
  const std::vector<Declared> expected{
      {"a", "all_reduce", Phase::kComm, {whole}, {whole}, others * 8, 2 * others * 8 * 4},
      {"b", "reduce_scatter", Phase::kBackward, {pieces}, {piece}, others * 8, others * 8 * 2},
      {"c", "all_gather", Phase::kComm, {piece}, {pieces}, 0, others * 8 * 2},
      {"d", "broadcast", Phase::kComm, sends ? handed_on : none, sends ? none : handed_on, 0, 8 * 2},
      {"e", "all_to_all", Phase::kComm, {from}, {to}, 0, sent_elems * 4},
      {"f", "barrier", Phase::kComm, {}, {}, 0, 0}};

  const std::vector<RecordedEntry>& entries = plan.recording().entries;
  ASSERT_EQ(entries.size(), expected.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    SCOPED_TRACE(fmt::format("{} of {} ranks, backend {}", expected[i].kernel, ranks, communicator.backend()));
    EXPECT_EQ(entries[i].name, expected[i].name);
    EXPECT_EQ(entries[i].kernel, expected[i].kernel);
    EXPECT_EQ(entries[i].phase, expected[i].phase);
    EXPECT_DOUBLE_EQ(entries[i].flops, expected[i].flops);
    // A recording fills in what an operation leaves open: what it reads and writes.
    double touched_bytes = 0;
    const auto expect_access = [&](const std::vector<RecordedAccess>& declared, const std::vector<Tensor>& tensors) {
      ASSERT_EQ(declared.size(), tensors.size());
      for (std::size_t k = 0; k < tensors.size(); ++k) {
        EXPECT_EQ(declared[k].begin_bytes, tensors[k].offset_bytes());
        EXPECT_EQ(declared[k].end_bytes - declared[k].begin_bytes, tensors[k].extent_bytes());
        touched_bytes += static_cast<double>(tensors[k].extent_bytes());
      }
    };
    expect_access(entries[i].reads, expected[i].reads);
    expect_access(entries[i].writes, expected[i].writes);
    EXPECT_DOUBLE_EQ(entries[i].bytes, expected[i].bytes == 0 ? touched_bytes : expected[i].bytes);
  }
}

}  // namespace strake::comm
