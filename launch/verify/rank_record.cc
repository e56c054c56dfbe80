#include "launch/verify/rank_record.h"

#include <fmt/format.h>

#include <bit>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

std::uint64_t bits(double value) { return std::bit_cast<std::uint64_t>(value); }

// A number that differs is told from its neighbour by all of its digits.
std::string number(double value) { return fmt::format("{:.17g}", value); }

using State = std::map<std::string, std::uint64_t>;  // by name

// Of each rank: its own of what it holds whole, the sum over ranks of what they keep parts of.
std::vector<State> whole_state(std::span<const RankRecord> ranks) {
  State of_parts;
  for (const RankRecord& rank : ranks) {
    for (const StateFingerprint& fingerprint : rank.state) {
      if (!fingerprint.whole) of_parts[fingerprint.name] += fingerprint.value;
    }
  }
  std::vector<State> out(ranks.size(), of_parts);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    for (const StateFingerprint& fingerprint : ranks[rank].state) {
      if (fingerprint.whole) out[rank][fingerprint.name] += fingerprint.value;
    }
  }
  return out;
}

std::string fingerprint_at(const State& state, const std::string& name) {
  const auto found = state.find(name);
  return found == state.end() ? "missing" : fmt::format("{:016x}", found->second);
}

}  // namespace

std::string RankRecord::to_text() const {
  // Bits, since JSON has no NaN.
  Json numbers = Json::array(), fingerprints = Json::array();
  for (const Step& step : steps) numbers.push_back({bits(step.loss), bits(step.grad_norm)});
  for (const StateFingerprint& each : state) fingerprints.push_back({each.name, each.whole, each.value});
  return Json{numbers, fingerprints, buckets, operations_checked, reports, first_reports, stop_signal}.dump();
}

RankRecord RankRecord::from_text(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  STRAKE_CHECK(json.is_array() && json.size() == 7, "text of to_text: " + text);
  RankRecord out;
  for (const Json& step : json[0]) {
    out.steps.push_back(
        {std::bit_cast<double>(step[0].get<std::uint64_t>()), std::bit_cast<double>(step[1].get<std::uint64_t>())});
  }
  for (const Json& each : json[1]) out.state.push_back({each[0], each[1], each[2]});
  out.buckets = json[2];
  out.operations_checked = json[3];
  out.reports = json[4];
  out.first_reports = json[5].get<std::vector<std::string>>();
  out.stop_signal = json[6];
  return out;
}

std::string Difference::describe() const {
  return fmt::format("step {}, {}, rank {}: {} instead of {}", step, what, rank, value, expected);
}

std::optional<Difference> first_difference(std::span<const RankRecord> ranks, std::span<const RankRecord> expected) {
  STRAKE_CHECK(!ranks.empty() && ranks.size() == expected.size(), "variants of different numbers of ranks");
  const std::size_t steps = expected.front().steps.size();
  for (std::size_t step = 0; step < steps; ++step) {
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      STRAKE_CHECK(ranks[rank].steps.size() == steps && expected[rank].steps.size() == steps, "not as many steps");
      const RankRecord::Step &mine = ranks[rank].steps[step], &other = expected[rank].steps[step];
      const auto differs = [&](const char* what, double value, double reference) {
        return Difference{static_cast<std::int64_t>(step) + 1, what, static_cast<int>(rank), number(value),
                          number(reference)};
      };
      if (bits(mine.loss) != bits(other.loss)) return differs("loss", mine.loss, other.loss);
      if (bits(mine.grad_norm) != bits(other.grad_norm)) {
        return differs("gradient norm", mine.grad_norm, other.grad_norm);
      }
    }
  }
  const std::vector<State> state = whole_state(ranks), reference = whole_state(expected);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    State names = reference[rank];
    names.insert(state[rank].begin(), state[rank].end());
    for (const auto& [name, value] : names) {
      const std::string mine = fingerprint_at(state[rank], name), other = fingerprint_at(reference[rank], name);
      if (mine == other) continue;
      return Difference{static_cast<std::int64_t>(steps), name, static_cast<int>(rank), mine, other};
    }
  }
  return std::nullopt;
}

}  // namespace strake::launch
