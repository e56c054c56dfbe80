#include "launch/machine/machine_report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>

#include "launch/machine/machine.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

template <typename Value>
Json or_null(const std::optional<Value>& value) {
  return value.has_value() ? Json(*value) : Json();
}

template <typename Value>
std::string or_unknown(const std::optional<Value>& value) {
  return value.has_value() ? fmt::format("{:.0f}", static_cast<double>(*value)) : "?";
}

std::string switched(const std::optional<bool>& value) { return !value.has_value() ? "?" : *value ? "on" : "off"; }

Json gpus_json(const GpuMachine& machine) {
  Json out = Json::array();
  for (const GpuFacts& gpu : machine.gpus) {
    out.push_back(
        {{"ordinal", gpu.ordinal},
         {"name", gpu.name},
         {"pci_bus_id", gpu.pci_bus_id},
         {"uuid", gpu.uuid},
         {"memory_bytes", gpu.memory_bytes},
         {"multiprocessors", gpu.multiprocessors},
         {"compute_capability", fmt::format("{}.{}", gpu.compute_capability / 10, gpu.compute_capability % 10)},
         {"max_sm_clock_mhz", or_null(gpu.max_sm_clock_mhz)},
         {"max_memory_clock_mhz", or_null(gpu.max_memory_clock_mhz)},
         {"sm_clock_mhz", or_null(gpu.sm_clock_mhz)},
         {"memory_clock_mhz", or_null(gpu.memory_clock_mhz)},
         {"power_limit_w", or_null(gpu.power_limit_w)},
         {"ecc", or_null(gpu.ecc)},
         {"persistence", or_null(gpu.persistence)}});
  }
  return out;
}

Json links_json(const GpuMachine& machine) {
  Json out = Json::array();
  for (const GpuLink& link : machine.links) {
    out.push_back({{"gpus", {link.first, link.second}},
                   {"nvlinks", link.nvlinks},
                   {"through_switch", link.through_switch},
                   {"path", link.path}});
  }
  return out;
}

}  // namespace

std::string describe(const GpuMachine& machine) {
  if (machine.gpus.empty()) {
    return "cuda: " + machine.missing + (machine.driver.empty() ? "" : fmt::format(" (driver {})", machine.driver));
  }
  std::string out = fmt::format("cuda: {} GPU{}, driver {}", machine.gpus.size(), machine.gpus.size() == 1 ? "" : "s",
                                machine.driver.empty() ? "unknown" : machine.driver);
  for (const GpuFacts& gpu : machine.gpus) {
    out += fmt::format(
        "\n  {}: {}, PCI {}, {}\n     sm_{}, {} multiprocessors, {:.1f} GiB; SM clock {} of {} MHz, memory clock {} of "
        "{} MHz, power limit {} W, ECC {}, persistence {}",
        gpu.ordinal, gpu.name, gpu.pci_bus_id, gpu.uuid, gpu.compute_capability, gpu.multiprocessors,
        static_cast<double>(gpu.memory_bytes) / (1 << 30), or_unknown(gpu.sm_clock_mhz),
        or_unknown(gpu.max_sm_clock_mhz), or_unknown(gpu.memory_clock_mhz), or_unknown(gpu.max_memory_clock_mhz),
        or_unknown(gpu.power_limit_w), switched(gpu.ecc), switched(gpu.persistence));
  }
  for (const GpuLink& link : machine.links) out += fmt::format("\n  {} - {}: {}", link.first, link.second, link.path);
  return out;
}

Json build_json() {
  const Build build = build_description();
  return {{"version", build.version},
          {"commit", build.commit},
          {"type", build.type},
          {"compiler", build.compiler},
          {"backends", build.backends}};
}

Json libraries_json() {
  Json out = Json::object();
  for (const auto& [name, version] : library_versions()) out[name] = version;
  return out;
}

Json hardware_json(const GpuMachine& gpus) {
  const Machine machine = read_machine();
  return {{"cpu", machine.cpu},
          {"cores", machine.cores},
          {"memory_bytes", machine.memory_bytes},
          {"os", machine.os},
          {"gpu_driver", gpus.driver.empty() ? Json() : Json(gpus.driver)},
          {"gpus", gpus_json(gpus)},
          {"gpu_links", links_json(gpus)}};
}

std::string utc_now() {
  const auto seconds = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds));
}

}  // namespace strake::launch
