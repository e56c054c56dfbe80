#include "launch/train/memory_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace strake::launch {
namespace {

const char* name_of(MemoryKind kind) { return kind == MemoryKind::kDevice ? "device" : "host"; }

std::string line(const std::string& name, MemoryKind kind, std::size_t size_bytes, const std::string& remark = "") {
  return fmt::format("  {:<22} {:<6} {:>15} bytes {:>9.3f} GiB{}{}\n", name, name_of(kind), size_bytes,
                     static_cast<double>(size_bytes) / (1 << 30), remark.empty() ? "" : "  ", remark);
}

}  // namespace

std::size_t MemoryTable::size_bytes(MemoryKind kind) const {
  std::size_t sum_bytes = 0;
  for (const MemoryRow& row : rows) sum_bytes += row.kind == kind ? row.size_bytes : 0;
  return sum_bytes;
}

bool MemoryTable::estimated() const { return std::ranges::any_of(rows, &MemoryRow::estimated); }

std::string MemoryTable::describe() const {
  std::string out;
  for (const MemoryKind kind : {MemoryKind::kDevice, MemoryKind::kHost}) {
    for (const MemoryRow& row : rows) {
      if (row.kind == kind) out += line(row.name, kind, row.size_bytes, row.estimated ? "estimated" : "");
    }
  }
  const std::size_t device_bytes = size_bytes(MemoryKind::kDevice);
  out += line("total", MemoryKind::kDevice, device_bytes);
  if (driver_bytes.has_value()) {
    const double apart = static_cast<double>(device_bytes) / static_cast<double>(*driver_bytes) - 1;
    out += line("the driver says", MemoryKind::kDevice, *driver_bytes,
                fmt::format("the total is {:+.2f} % from it", 100 * apart));
  }
  out += line("total", MemoryKind::kHost, size_bytes(MemoryKind::kHost));
  out.pop_back();
  return out;
}

nlohmann::ordered_json to_json(const MemoryTable& table) {
  nlohmann::ordered_json parts = nlohmann::ordered_json::array();
  for (const MemoryRow& row : table.rows) {
    parts.push_back(
        {{"name", row.name}, {"kind", name_of(row.kind)}, {"bytes", row.size_bytes}, {"estimated", row.estimated}});
  }
  return {{"parts", parts},
          {"device_bytes", table.size_bytes(MemoryKind::kDevice)},
          {"host_bytes", table.size_bytes(MemoryKind::kHost)},
          {"driver_bytes",
           table.driver_bytes.has_value() ? nlohmann::ordered_json(*table.driver_bytes) : nlohmann::ordered_json()}};
}

MemoryTable memory_table_from(const nlohmann::ordered_json& json) {
  MemoryTable table;
  for (const auto& part : json.at("parts")) {
    table.rows.push_back({part.at("name"), part.at("kind") == "host" ? MemoryKind::kHost : MemoryKind::kDevice,
                          part.at("bytes"), part.at("estimated")});
  }
  if (!json.at("driver_bytes").is_null()) table.driver_bytes = json.at("driver_bytes").get<std::size_t>();
  return table;
}

}  // namespace strake::launch
