// Arenas: all memory of a rank that trains, by what lies in it. Planned by the parts of a trainer, taken at once.
// Threads: the training thread.
#pragma once

#include <cstddef>

#include "launch/train/memory_table.h"
#include "runtime/device/arena.h"
#include "runtime/device/device.h"

namespace strake::launch {

struct Arenas {
  Arena weights{"weights", MemoryKind::kDevice};
  Arena compute_weights{"bf16 weights", MemoryKind::kDevice};
  Arena gradients{"gradients", MemoryKind::kDevice};
  Arena wire{"gradients in transit", MemoryKind::kDevice};
  Arena optimizer{"optimizer state", MemoryKind::kDevice};
  Arena activations{"activations", MemoryKind::kDevice};
  Arena scalars{"scalars", MemoryKind::kDevice};
  Arena input{"input batches", MemoryKind::kDevice};
  Arena workspace{"workspace", MemoryKind::kDevice};
  Arena snapshot{"checkpoint snapshot", MemoryKind::kDevice};
  Arena host{"host staging", MemoryKind::kHost};
  Arena checkpoint{"checkpoint staging", MemoryKind::kHost};

  // Takes every byte, zero-filled. Throws OutOfMemoryError naming the arena.
  void allocate(Device& device);

  MemoryTable table() const;  // without empty ones, in the order above
  std::size_t size_bytes(MemoryKind kind) const { return table().size_bytes(kind); }
};

}  // namespace strake::launch
