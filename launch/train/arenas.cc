#include "launch/train/arenas.h"

#include <array>

namespace strake::launch {
namespace {

// Of const or mutable arenas.
template <typename Self>
auto all(Self& self) {
  return std::array{&self.weights,   &self.compute_weights, &self.gradients, &self.wire,
                    &self.optimizer, &self.activations,     &self.scalars,   &self.input,
                    &self.workspace, &self.snapshot,        &self.host,      &self.checkpoint};
}

}  // namespace

void Arenas::allocate(Device& device) {
  for (Arena* arena : all(*this)) arena->allocate(device);
}

MemoryTable Arenas::table() const {
  MemoryTable table;
  for (const Arena* arena : all(*this)) {
    if (arena->size_bytes() > 0) table.rows.push_back({arena->name(), arena->kind(), arena->size_bytes()});
  }
  return table;
}

}  // namespace strake::launch
