#include "launch/job/rank_map.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "launch/job/devices.h"
#include "launch/job/rank_environment.h"
#include "runtime/base/check.h"
#include "runtime/base/host_name.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

// "ranks 0-3, 8": ascending numbers.
std::string numbers_text(const std::vector<int>& ranks) {
  std::string out;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    out += fmt::format("{}{}", out.empty() ? "" : ", ", ranks[i]);
    if (end - i > 1) out += fmt::format("{}{}", end - i > 2 ? "-" : ", ", ranks[end - 1]);
    i = end;
  }
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", out);
}

// Ranks that are alike but for their numbers.
struct Group {
  const RankDescription* first;
  std::vector<int> ranks;
  std::set<int> cores;
  std::vector<std::string> pci_bus_ids;  // each once: ranks may share a GPU
  std::set<std::string> links;

  std::string describe() const {
    if (first->gpu.empty()) {
      return fmt::format("CPU, {}{} core{}{}", *cores.begin(),
                         cores.size() == 1 ? "" : fmt::format(" to {}", *cores.rbegin()),
                         *cores.rbegin() == 1 ? "" : "s", ranks.size() == 1 ? "" : " each");
    }
    const std::size_t gpus = pci_bus_ids.size();
    return fmt::format("{}{}{}{}, PCI {}", gpus == 1 ? "" : fmt::format("{} x ", gpus), first->gpu,
                       links.empty() ? "" : fmt::format(", {}", fmt::join(links, " or ")),
                       gpus < ranks.size() ? ", shared" : "", fmt::join(pci_bus_ids, " "));
  }
};

std::vector<Group> groups_of(std::span<const RankDescription> ranks) {
  std::vector<Group> groups;
  for (const RankDescription& rank : ranks) {
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& each) {
      return each.first->host == rank.host && each.first->gpu == rank.gpu;
    });
    if (group == groups.end())
      group = groups.insert(group, Group{.first = &rank, .ranks = {}, .cores = {}, .pci_bus_ids = {}, .links = {}});
    group->ranks.push_back(rank.rank);
    group->cores.insert(rank.cores);
    if (std::ranges::find(group->pci_bus_ids, rank.pci_bus_id) == group->pci_bus_ids.end())
      group->pci_bus_ids.push_back(rank.pci_bus_id);
    if (!rank.link.empty()) group->links.insert(rank.link);
  }
  return groups;
}

// The next one of its host, round and round; null: it is alone there, or computes on no GPU.
const RankDescription* next_on_host(std::span<const RankDescription> ranks, int rank) {
  const RankDescription& own = ranks[static_cast<std::size_t>(rank)];
  for (std::size_t i = 1; i < ranks.size(); ++i) {
    const RankDescription& other = ranks[(static_cast<std::size_t>(rank) + i) % ranks.size()];
    if (other.host == own.host && !own.gpu.empty() && !other.gpu.empty() && other.pci_bus_id != own.pci_bus_id)
      return &other;
  }
  return nullptr;
}

}  // namespace

std::string to_text(const RankDescription& rank) {
  return to_json(rank).dump(-1, ' ', false, Json::error_handler_t::replace);
}

RankDescription rank_description(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  STRAKE_CHECK(json.is_object(), "text of to_text: " + text);
  return {.rank = json.at("rank"),
          .host = json.at("host"),
          .pid = json.at("pid"),
          .device = json.at("device"),
          .cores = json.at("cores"),
          .gpu = json.at("gpu"),
          .pci_bus_id = json.at("pci_bus_id"),
          .link = json.at("link")};
}

Json to_json(const RankDescription& rank) {
  return {{"rank", rank.rank},
          {"host", rank.host},
          {"pid", rank.pid},
          {"device", rank.device},
          {"cores", rank.cores},
          {"gpu", rank.gpu},
          {"pci_bus_id", rank.pci_bus_id},
          {"link", rank.link}};
}

std::vector<RankDescription> describe_ranks(comm::Control& control, const Device& device) {
  RankDescription own{.rank = control.rank(),
                      .host = host_name(),
                      .pid = getpid(),
                      .device = device.description(),
                      .cores = usable_cores(RankEnvironment::detect())};
  if (const std::optional<GpuFacts> gpu = current_gpu(device); gpu.has_value()) {
    own.gpu = gpu->name;
    own.pci_bus_id = gpu->pci_bus_id;
  }
  const auto of_all = [&] {
    std::vector<RankDescription> ranks;
    for (const std::string& text : control.all_gather(to_text(own))) ranks.push_back(rank_description(text));
    return ranks;
  };
  std::vector<RankDescription> ranks = of_all();
  // A link is between two, and known where both are.
  if (const RankDescription* next = next_on_host(ranks, own.rank); next != nullptr)
    own.link = gpu_link_path(own.pci_bus_id, next->pci_bus_id);
  return of_all();
}

int hosts_of(std::span<const RankDescription> ranks) {
  std::set<std::string_view> hosts;
  for (const RankDescription& rank : ranks) hosts.insert(rank.host);
  return static_cast<int>(hosts.size());
}

std::string rank_map_text(std::span<const RankDescription> ranks) {
  const std::vector<Group> groups = groups_of(ranks);
  std::size_t numbers_width = 0, host_width = 0;
  for (const Group& group : groups) {
    numbers_width = std::max(numbers_width, numbers_text(group.ranks).size());
    host_width = std::max(host_width, group.first->host.size());
  }
  std::string out;
  for (const Group& group : groups) {
    out += fmt::format("{}{:<{}}  {:<{}}  {}", out.empty() ? "" : "\n", numbers_text(group.ranks), numbers_width,
                       group.first->host, host_width, group.describe());
  }
  return out;
}

}  // namespace strake::launch
