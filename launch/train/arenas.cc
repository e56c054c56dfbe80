#include "launch/train/arenas.h"

#include <fmt/format.h>

#include <array>

namespace strake::launch {
namespace {

// Of const or mutable arenas.
template <typename Self>
auto all(Self& self) {
  return std::array{&self.weights,     &self.compute_weights, &self.gradients, &self.wire,      &self.optimizer,
                    &self.activations, &self.scalars,         &self.input,     &self.workspace, &self.host};
}

}  // namespace

void Arenas::allocate(Device& device) {
  for (Arena* arena : all(*this)) arena->allocate(device);
}

std::vector<Arenas::Part> Arenas::parts() const {
  std::vector<Part> parts;
  for (const Arena* arena : all(*this)) {
    if (arena->size_bytes() > 0) parts.push_back({arena->name(), arena->kind(), arena->size_bytes()});
  }
  return parts;
}

std::size_t Arenas::size_bytes(MemoryKind kind) const {
  std::size_t total_bytes = 0;
  for (const Part& part : parts()) total_bytes += part.kind == kind ? part.size_bytes : 0;
  return total_bytes;
}

std::string Arenas::table() const {
  const auto line = [](const std::string& name, const char* kind, std::size_t bytes) {
    return fmt::format("  {:<20} {:<6} {:>14} bytes", name, kind, bytes);
  };
  std::string table;
  for (const Part& part : parts())
    table += line(part.name, part.kind == MemoryKind::kDevice ? "device" : "host", part.size_bytes) + "\n";
  return table + line("total", "", size_bytes(MemoryKind::kDevice) + size_bytes(MemoryKind::kHost));
}

}  // namespace strake::launch
