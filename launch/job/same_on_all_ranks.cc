#include "launch/job/same_on_all_ranks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "launch/job/agreement.h"
#include "launch/machine/machine.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

std::string value_of(const Facts& facts, const std::string& name) {
  const auto found = std::ranges::find(facts, name, &Facts::value_type::first);
  return found == facts.end() ? "(nothing)" : found->second;
}

}  // namespace

void require_same_on_all_ranks(comm::Control& control, const Facts& mine, const std::string& remedy) {
  // Values come from files and the command line: bytes that are not UTF-8 must not end the comparison.
  const std::string text = Json(mine).dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::vector<std::string> texts = control.all_gather(text);
  if (std::ranges::all_of(texts, [&](const std::string& its) { return its == texts.front(); })) return;

  std::vector<Facts> facts;
  std::vector<std::string> names;  // of all ranks, in order
  for (const std::string& its : texts) {
    facts.push_back(Json::parse(its).get<Facts>());
    for (const auto& [name, value] : facts.back()) {
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  std::string report;
  for (const std::string& name : names) {
    std::vector<std::pair<std::string, std::vector<std::size_t>>> ranks_of;  // by value, in rank order
    for (std::size_t rank = 0; rank < facts.size(); ++rank) {
      const std::string value = value_of(facts[rank], name);
      const auto known = std::ranges::find(ranks_of, value, &decltype(ranks_of)::value_type::first);
      if (known == ranks_of.end()) {
        ranks_of.push_back({value, {rank}});
      } else {
        known->second.push_back(rank);
      }
    }
    if (ranks_of.size() == 1) continue;
    std::string values;
    for (const auto& [value, ranks] : ranks_of) {
      values += fmt::format("{}rank {} has {}", values.empty() ? "" : ", ", fmt::join(ranks, ", "), value);
    }
    report += fmt::format("{}{}: the ranks differ: {}; {}", report.empty() ? "" : "\n", name, values, remedy);
  }
  throw AgreedError(ExitCode::kConfig, report);
}

Facts program_facts(const std::string& command) {
  const Build build = build_description();
  return {{"command", command},
          {"build",
           fmt::format("{} {} ({}, {}, {})", build.version, build.commit, build.type, build.compiler, build.backends)}};
}

Facts config_facts(const Config& config) {
  Facts facts;
  const Json sections = Json::parse(config_to_json(config));
  for (const auto& [section, keys] : sections.items()) {
    for (const auto& [key, value] : keys.items()) facts.emplace_back(section + '.' + key, value.dump());
  }
  return facts;
}

}  // namespace strake::launch
