#include "models/initialize.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

#include "runtime/base/random.h"
#include "runtime/device/host_memory.h"

namespace strake::models {
namespace {

constexpr std::int64_t kChunkElems = std::int64_t{8} << 20;
// What a thread takes at once; less is not worth one.
constexpr std::int64_t kPieceElems = std::int64_t{1} << 15;

// Stored elements from some index on whose counted indices follow each other too.
struct Run {
  std::int64_t first;  // counted
  std::int64_t elems;
};

Run run_at(const ParamSpec& spec, std::int64_t stored) {
  const InitialValue& initial = spec.initial;
  const std::int64_t rows = spec.global_shape.empty() ? 1 : spec.global_shape[0];
  const std::int64_t columns = spec.elems() / rows;
  if (initial.transposed) return {stored % columns * rows + stored / columns, 1};
  if (initial.group_rows.empty()) return {stored, spec.elems() - stored};
  // Stored: of each group its rows of part 0, part 1, ...; counted: all groups' rows of part 0, then of part 1, ...
  const std::int64_t rows_of_group =
      std::accumulate(initial.group_rows.begin(), initial.group_rows.end(), std::int64_t{0});
  STRAKE_CHECK(rows % rows_of_group == 0, "'" + spec.name + "' does not consist of whole groups of rows");
  const std::int64_t groups = rows / rows_of_group, group = stored / columns / rows_of_group;
  std::int64_t row = stored / columns % rows_of_group, row_of_part = 0;
  for (const std::int64_t part_rows : initial.group_rows) {
    if (row < part_rows) {
      row += row_of_part + group * part_rows;
      break;
    }
    row -= part_rows;
    row_of_part += groups * part_rows;
  }
  return {row * columns + stored % columns, columns - stored % columns};
}

// values[i] = the normal value of counted element first + i.
template <typename T>
void fill_normal(std::span<T> values, std::int64_t first, double standard_deviation, const Philox& random) {
  const auto scaled = [&](double normal) { return static_cast<T>(standard_deviation * normal); };
  auto index = static_cast<std::uint64_t>(first);
  std::size_t i = 0;
  if (index % 2 == 1 && i < values.size()) values[i++] = scaled(random.normal(index++));
  for (; i + 1 < values.size(); i += 2, index += 2) {
    const std::array<double, 2> pair = random.normal_pair(index / 2);
    values[i] = scaled(pair[0]);
    values[i + 1] = scaled(pair[1]);
  }
  if (i < values.size()) values[i] = scaled(random.normal(index));
}

// As many whole pairs of rows of a transposed weight as `values`, which begins with an even row, holds; returns their
// elements. Neighbours in the order of counting lie in neighbouring rows, and are made together.
template <typename T>
std::size_t fill_row_pairs(std::span<T> values, const ParamSpec& spec, std::int64_t stored, const Philox& random) {
  const std::int64_t rows = spec.global_shape[0], columns = spec.elems() / rows;
  const std::int64_t first_row = stored / columns;
  if (rows % 2 != 0 || first_row % 2 != 0 || stored % columns != 0) return 0;
  const std::int64_t pairs = std::ssize(values) / columns / 2;
  T* at = values.data();
  for (std::int64_t row = first_row; row < first_row + 2 * pairs; row += 2, at += 2 * columns) {
    for (std::int64_t column = 0; column < columns; ++column) {
      const auto pair = random.normal_pair(static_cast<std::uint64_t>(column * rows + row) / 2);
      at[column] = static_cast<T>(spec.initial.standard_deviation * pair[0]);
      at[columns + column] = static_cast<T>(spec.initial.standard_deviation * pair[1]);
    }
  }
  return static_cast<std::size_t>(2 * pairs * columns);
}

// The stored elements of `spec` from `stored` on.
template <typename T>
void fill_parameter(std::span<T> values, const ParamSpec& spec, std::int64_t stored, std::uint64_t seed) {
  switch (spec.initial.kind) {
    case InitialValue::Kind::kZeros:
      std::ranges::fill(values, T(0));
      return;
    case InitialValue::Kind::kOnes:
      std::ranges::fill(values, T(1));
      return;
    case InitialValue::Kind::kNormal: {
      const Philox random(random_key(seed, spec.name));
      while (!values.empty()) {
        if (const std::size_t done = spec.initial.transposed ? fill_row_pairs(values, spec, stored, random) : 0) {
          values = values.subspan(done);
          stored += static_cast<std::int64_t>(done);
          continue;
        }
        const Run run = run_at(spec, stored);
        const auto part = values.first(static_cast<std::size_t>(std::min<std::int64_t>(run.elems, std::ssize(values))));
        fill_normal(part, run.first, spec.initial.standard_deviation, random);
        values = values.subspan(part.size());
        stored += std::ssize(part);
      }
      return;
    }
  }
}

// The flat weights from element `begin` on.
template <typename T>
void fill_flat(std::span<T> values, std::int64_t begin, const ParamLayout& layout, std::uint64_t seed) {
  const std::int64_t end = begin + std::ssize(values);
  std::int64_t filled = begin;
  const auto zero_until = [&](std::int64_t position) {  // gaps between parameters, and behind the last
    for (; filled < position; ++filled) values[static_cast<std::size_t>(filled - begin)] = T(0);
  };
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const ParamId id{static_cast<std::int32_t>(i)};
    const std::int64_t from = std::max(begin, layout.offset_elems(id));
    const std::int64_t to = std::min(end, layout.offset_elems(id) + layout.spec(id).elems());
    if (from >= to) continue;
    zero_until(from);
    fill_parameter(values.subspan(static_cast<std::size_t>(from - begin), static_cast<std::size_t>(to - from)),
                   layout.spec(id), from - layout.offset_elems(id), seed);
    filled = to;
  }
  zero_until(end);
}

template <typename T>
void fill_on_threads(std::span<T> values, std::int64_t begin, const ParamLayout& layout, std::uint64_t seed,
                     int threads) {
  const std::int64_t elems = std::ssize(values);
  // Whoever is done takes the next piece: zeros cost nothing, and what other threads run is not known.
  std::atomic<std::int64_t> next{0};
  const auto fill_pieces = [&] {
    for (std::int64_t from; (from = next.fetch_add(kPieceElems, std::memory_order_relaxed)) < elems;) {
      const std::int64_t count = std::min(kPieceElems, elems - from);
      fill_flat(values.subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(count)), begin + from, layout,
                seed);
    }
  };
  // Signals are for the training thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::vector<std::jthread> others;
  const std::int64_t wanted = std::clamp<std::int64_t>(elems / kPieceElems, 1, threads);
  for (std::int64_t thread = 1; thread < wanted; ++thread) others.emplace_back(fill_pieces);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  fill_pieces();
}

}  // namespace

std::int64_t initial_staging_elems(const ParamLayout& layout) {
  return std::clamp<std::int64_t>(layout.total_elems(), 2, 2 * kChunkElems);
}

std::int64_t counted_element(const ParamSpec& spec, std::int64_t stored) { return run_at(spec, stored).first; }

void initialize_weights(Stream& stream, const Tensor& weights, const Tensor& staging, const ParamLayout& layout,
                        std::uint64_t seed, int threads, std::int64_t begin_elems) {
  Device& device = stream.device();
  const std::int64_t half_elems = staging.elems() / 2;
  STRAKE_CHECK(half_elems > 0, "no room to make weights in");
  std::array<Event, 2> copied{device.make_event("initial weights copied, even chunk"),
                              device.make_event("initial weights copied, odd chunk")};
  for (std::int64_t begin = 0, chunk = 0; begin < weights.elems(); begin += half_elems, ++chunk) {
    const std::int64_t elems = std::min(half_elems, weights.elems() - begin), half = chunk % 2;
    const Tensor made = staging.flat(half * half_elems, elems);
    Event& out = copied[static_cast<std::size_t>(half)];
    device.synchronize(out);  // WAR: this half's last copy has read it
    if (weights.dtype() == DType::kF64) {
      fill_on_threads(host_span<double>(made), begin_elems + begin, layout, seed, threads);
    } else {
      fill_on_threads(host_span<float>(made), begin_elems + begin, layout, seed, threads);
    }
    stream.copy({"initial weights", Phase::kOther}, weights.flat(begin, elems), made);
    stream.record(out);
  }
  stream.synchronize();
}

}  // namespace strake::models
