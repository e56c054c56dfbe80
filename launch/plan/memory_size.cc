#include "launch/plan/memory_size.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <utility>

namespace strake::launch {

std::optional<std::uint64_t> memory_size_from(std::string_view text) {
  constexpr std::pair<std::string_view, double> kUnits[] = {{"KiB", 0x1p10}, {"KB", 1e3},     {"MiB", 0x1p20},
                                                            {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"MB", 1e6},
                                                            {"GB", 1e9},     {"TB", 1e12}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc()) return std::nullopt;
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const auto& [name, bytes] : kUnits) {
    const double size_bytes = number * bytes;
    if (unit == name && size_bytes >= 1 && size_bytes <= 0x1p60) return static_cast<std::uint64_t>(size_bytes);
  }
  return std::nullopt;
}

std::string memory_size_text(std::uint64_t size_bytes) {
  const auto bytes = static_cast<double>(size_bytes);
  return bytes < 0x1p30 ? fmt::format("{:.2f} MiB", bytes / 0x1p20) : fmt::format("{:.2f} GiB", bytes / 0x1p30);
}

}  // namespace strake::launch
