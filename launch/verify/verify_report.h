// VerifyReport: what `strake verify-overlap` found, for people and as JSON (docs/formats.md).
// Threads: values. Errors: none.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "launch/verify/rank_record.h"
#include "launch/verify/variant.h"

namespace strake::launch {

enum class Verdict : std::uint8_t {
  kReference,  // the others of its cell are compared with it
  kPass,
  kFail,
  kNotRun,  // this machine or build cannot: `problem` says why
};
std::string_view name_of(Verdict verdict);

struct VariantResult {
  Variant variant;
  Verdict verdict = Verdict::kNotRun;
  double seconds = 0;
  std::int64_t buckets = 0;
  std::string reference = {};  // name of what it was compared with
  std::optional<Difference> difference = {};
  struct Report {
    int rank;
    std::string text;
  };
  std::int64_t order_reports = 0;          // of all ranks
  std::vector<Report> first_reports = {};  // some of them
  std::string problem = {};
};

struct CellResult {
  Cell cell;
  std::vector<VariantResult> variants;
  std::vector<RankRecord::Step> steps;  // of the reference; loss: of all ranks
};

struct VerifyReport {
  std::vector<CellResult> cells;
  std::string device, backend;

  std::int64_t count(Verdict verdict) const;
  bool passed() const { return count(Verdict::kFail) == 0; }
  // The first that failed, and why: one line; empty: none did.
  std::string first_failure() const;
};

// A variant's line, and those below it that say what is wrong; no newline at the end.
std::string describe(const VariantResult& result);
std::string heading(const Cell& cell);
// The last line.
std::string summary(const VerifyReport& report, std::int64_t steps);
nlohmann::ordered_json to_json(const VerifyReport& report);

}  // namespace strake::launch
