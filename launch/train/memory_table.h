// MemoryTable: all memory that a rank takes, a row for each thing it is for. For people (`train --print-schedule`,
// `plan`) and for files (bench, `plan --json`; docs/formats.md).
//
// On a GPU a row stands for what the driver's context and libraries keep there; then the sum is to be what the driver
// itself says, which stands beside it once the memory is taken.
// Threads: a value. Errors: none.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "runtime/device/arena.h"

namespace strake::launch {

inline constexpr const char* kContextAndLibraries = "context and libraries";

struct MemoryRow {
  std::string name;
  MemoryKind kind;
  std::size_t size_bytes;
  bool estimated = false;  // of a plan: by experience with another machine

  bool operator==(const MemoryRow&) const = default;
};

struct MemoryTable {
  std::vector<MemoryRow> rows;
  std::optional<std::size_t> driver_bytes = std::nullopt;  // that the process takes of the device, says its driver

  std::size_t size_bytes(MemoryKind kind) const;
  bool estimated() const;  // is any row?
  // A line each, sums and the driver's word at the end. No newline at the end.
  std::string describe() const;
};

nlohmann::ordered_json to_json(const MemoryTable& table);
MemoryTable memory_table_from(const nlohmann::ordered_json& json);  // REQUIRES: made by to_json

}  // namespace strake::launch
