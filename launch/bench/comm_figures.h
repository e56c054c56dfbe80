// CommFigures: what `strake bench comm` says, computed from what every rank measured. Pure functions of values; the
// JSON is documented in docs/formats.md.
//
// Sizes and bandwidths are those of nccl-tests, so that tables can be laid side by side: a size is the larger of what a
// rank gives and gets; the algorithm's bandwidth is size over time; the bus's is what each link must carry for it,
// which does not depend on the number of ranks. Threads: values.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/dtype.h"

namespace strake::launch {

enum class Collective : std::uint8_t { kAllReduce, kReduceScatter, kAllGather, kBroadcast, kAllToAll, kBarrier };
inline constexpr std::array kCollectives{Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather,
                                         Collective::kBroadcast, Collective::kAllToAll,      Collective::kBarrier};
std::string_view name_of(Collective collective);

// Bus bandwidth over the algorithm's.
double bus_factor(Collective collective, int ranks);

// Sizes from `least` to `most`, each `factor` times the one before. REQUIRES: 0 < least <= most, factor > 1.
std::vector<std::int64_t> sizes_between(std::int64_t least_bytes, std::int64_t most_bytes, std::int64_t factor);
// The elements that a size stands for: as many for every rank where the collective cuts it, and at least one each.
std::int64_t elems_of(Collective collective, std::int64_t size_bytes, DType dtype, int ranks);

// A product and a collective beside each other.
struct BesideTimes {
  double product_alone_us = 0;              // with nothing beside it
  std::vector<double> product_us, comm_us;  // of those that lay wholly beside the others; may be empty
};
// One collective of one size, by one rank.
struct CommMeasurement {
  std::vector<double> times_us;  // of each iteration
  std::int64_t wrong_elems = 0;  // of the result, compared with what it must be
  std::optional<BesideTimes> beside = {};
};
// By all ranks.
struct CommFigure {
  Collective collective;
  std::int64_t elems = 0, size_bytes = 0;
  std::int64_t iterations = 0;
  double median_us = 0, low_us = 0, high_us = 0;  // of the slowest rank: the one with the largest median
  double algorithm_gb_s = 0, bus_gb_s = 0;        // at the median; 0 of a barrier
  std::int64_t wrong_elems = 0;
  struct Beside {  // medians of the rank where each is largest; absent: nothing lay wholly beside the other
    double product_alone_us = 0;
    std::optional<double> product_us, comm_us;
  };
  std::optional<Beside> beside = {};  // none: no product was timed
};
// REQUIRES: as many iterations of each rank, at least one; a product of all or of none.
CommFigure figure_of(Collective collective, std::int64_t elems, DType dtype, std::span<const CommMeasurement> ranks);

// Columns of nccl-tests; no newline at the end.
std::string table_of(std::span<const CommFigure> figures, DType dtype);
nlohmann::ordered_json to_json(const CommFigure& figure);

}  // namespace strake::launch
