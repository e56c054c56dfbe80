// RankRecord: what one rank saw of a variant, to be compared bit for bit with another variant of the same cell.
// Threads: values. Errors: none.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/verify/state_fingerprints.h"

namespace strake::launch {

struct RankRecord {
  static constexpr std::size_t kMostReports = 3;

  struct Step {
    double loss = 0;  // this rank's share
    double grad_norm = 0;
  };
  std::vector<Step> steps;
  std::vector<StateFingerprint> state;  // behind the last
  std::int64_t buckets = 0;
  std::int64_t operations_checked = 0;
  std::int64_t reports = 0;                // of the order checker
  std::vector<std::string> first_reports;  // at most kMostReports of them
  int stop_signal = 0;                     // that ended it early, on all ranks alike

  std::string to_text() const;
  static RankRecord from_text(const std::string& text);  // REQUIRES: made by to_text
};

// Where a variant first leaves its reference.
struct Difference {
  std::int64_t step = 0;  // from 1
  std::string what;       // "loss", "gradient norm", or as StateFingerprint::name: behind the last step
  int rank = 0;           // the first that differs; of a tensor that ranks keep parts of: 0
  std::string value, expected;

  bool operator==(const Difference&) const = default;
  std::string describe() const;
};

// nullopt: equal in every bit. REQUIRES: records of as many ranks and steps, in the order of ranks.
std::optional<Difference> first_difference(std::span<const RankRecord> ranks, std::span<const RankRecord> expected);

}  // namespace strake::launch
