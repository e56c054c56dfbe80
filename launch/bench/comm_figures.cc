#include "launch/bench/comm_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/telemetry/spread.h"

namespace strake::launch {
namespace {

bool is_cut(Collective collective) {
  return collective == Collective::kReduceScatter || collective == Collective::kAllGather ||
         collective == Collective::kAllToAll;
}

// Three significant digits at least, and no more than people read.
std::string time_text(double time_us) { return fmt::format("{:.{}f}", time_us, time_us < 100 ? 2 : 1); }

}  // namespace

std::string_view name_of(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
      return "all_reduce";
    case Collective::kReduceScatter:
      return "reduce_scatter";
    case Collective::kAllGather:
      return "all_gather";
    case Collective::kBroadcast:
      return "broadcast";
    case Collective::kAllToAll:
      return "all_to_all";
    case Collective::kBarrier:
      return "barrier";
  }
  return "?";
}

double bus_factor(Collective collective, int ranks) {
  const double others = static_cast<double>(ranks - 1) / ranks;
  switch (collective) {
    case Collective::kAllReduce:
      return 2 * others;
    case Collective::kReduceScatter:
    case Collective::kAllGather:
    case Collective::kAllToAll:
      return others;
    case Collective::kBroadcast:
      return 1;
    case Collective::kBarrier:
      return 0;
  }
  return 0;
}

std::vector<std::int64_t> sizes_between(std::int64_t least_bytes, std::int64_t most_bytes, std::int64_t factor) {
  STRAKE_CHECK(0 < least_bytes && least_bytes <= most_bytes && factor > 1, "no such sizes");
  std::vector<std::int64_t> sizes;
  for (std::int64_t size = least_bytes;; size *= factor) {
    sizes.push_back(size);
    if (size > most_bytes / factor) return sizes;  // also where the product would be no number
  }
}

std::int64_t elems_of(Collective collective, std::int64_t size_bytes, DType dtype, int ranks) {
  if (collective == Collective::kBarrier) return 0;
  const std::int64_t elems = size_bytes / static_cast<std::int64_t>(strake::size_bytes(dtype));
  if (!is_cut(collective)) return std::max(std::int64_t{1}, elems);
  return std::max(std::int64_t{1}, elems / ranks) * ranks;
}

CommFigure figure_of(Collective collective, std::int64_t elems, DType dtype, std::span<const CommMeasurement> ranks) {
  CommFigure figure{.collective = collective,
                    .elems = elems,
                    .size_bytes = elems * static_cast<std::int64_t>(size_bytes(dtype)),
                    .iterations = static_cast<std::int64_t>(ranks.front().times_us.size())};
  for (const CommMeasurement& rank : ranks) {
    const Spread times = spread_of(rank.times_us);
    figure.wrong_elems += rank.wrong_elems;
    if (times.median < figure.median_us) continue;
    figure.median_us = times.median;
    figure.low_us = times.low;
    figure.high_us = times.high;
  }
  for (const CommMeasurement& rank : ranks) {
    if (!rank.beside.has_value()) continue;
    CommFigure::Beside& beside = figure.beside.has_value() ? *figure.beside : figure.beside.emplace();
    const auto take_larger = [](std::optional<double>& most, const std::vector<double>& times_us) {
      if (!times_us.empty()) most = std::max(most.value_or(0), median_of(times_us));
    };
    beside.product_alone_us = std::max(beside.product_alone_us, rank.beside->product_alone_us);
    take_larger(beside.product_us, rank.beside->product_us);
    take_larger(beside.comm_us, rank.beside->comm_us);
  }
  if (figure.median_us > 0) {
    figure.algorithm_gb_s = static_cast<double>(figure.size_bytes) / figure.median_us / 1e3;
    figure.bus_gb_s = figure.algorithm_gb_s * bus_factor(collective, static_cast<int>(ranks.size()));
  }
  return figure;
}

std::string table_of(std::span<const CommFigure> figures, DType dtype) {
  const bool beside = std::ranges::any_of(figures, [](const CommFigure& figure) { return figure.beside.has_value(); });
  std::string out = fmt::format("{:<15} {:>12} {:>12} {:>6} {:>6} {:>12} {:>12} {:>12} {:>8}", "collective", "size B",
                                "elements", "type", "iters", "time us", "algbw GB/s", "busbw GB/s", "#wrong");
  if (beside) out += fmt::format(" {:>12} {:>12} {:>12}", "beside us", "product us", "alone us");
  for (const CommFigure& figure : figures) {
    out +=
        fmt::format("\n{:<15} {:>12} {:>12} {:>6} {:>6} {:>12} {:>12.2f} {:>12.2f} {:>8}", name_of(figure.collective),
                    figure.size_bytes, figure.elems, strake::name_of(dtype), figure.iterations,
                    time_text(figure.median_us), figure.algorithm_gb_s, figure.bus_gb_s, figure.wrong_elems);
    if (!figure.beside.has_value()) continue;
    const auto text = [](const std::optional<double>& time_us) {
      return time_us.has_value() ? time_text(*time_us) : std::string("-");
    };
    out += fmt::format(" {:>12} {:>12} {:>12}", text(figure.beside->comm_us), text(figure.beside->product_us),
                       time_text(figure.beside->product_alone_us));
  }
  return out;
}

nlohmann::ordered_json to_json(const CommFigure& figure) {
  using Json = nlohmann::ordered_json;
  Json beside;
  if (figure.beside.has_value()) {
    const auto or_null = [](const std::optional<double>& time_us) {
      return time_us.has_value() ? Json(*time_us) : Json();
    };
    beside = {{"time_us", or_null(figure.beside->comm_us)},
              {"product_us", or_null(figure.beside->product_us)},
              {"product_alone_us", figure.beside->product_alone_us}};
  }
  return {{"collective", name_of(figure.collective)},
          {"size_bytes", figure.size_bytes},
          {"elements", figure.elems},
          {"iterations", figure.iterations},
          {"time_us", {{"median", figure.median_us}, {"low", figure.low_us}, {"high", figure.high_us}}},
          {"algbw_gb_s", figure.algorithm_gb_s},
          {"busbw_gb_s", figure.bus_gb_s},
          {"wrong", figure.wrong_elems},
          {"beside", std::move(beside)}};
}

}  // namespace strake::launch
