// What `strake plan` prints, for people and for programs (docs/formats.md). Pure functions of values.
// Threads: any. Errors: none.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launch/plan/fitting.h"
#include "launch/plan/planner.h"

namespace strake::launch {

struct PlanReport {
  std::string config_path;
  RankPlan plan;
  std::vector<PolicyFit> fits;
  std::uint64_t limit_bytes = 0;  // 0: not known
  std::string limit_of;           // "--memory", "NVIDIA H100 80GB HBM3", "this host"

  bool fits_as_it_is() const { return plan.needed_bytes() <= limit_bytes; }
};

// No newline at the end.
std::string describe(const PlanReport& report);
nlohmann::ordered_json to_json(const PlanReport& report);

}  // namespace strake::launch
