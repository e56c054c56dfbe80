// RegisteredMemory: arenas that a communicator was told of, and is told to forget when this goes: behind the streams
// that carry its collectives, and before the arenas and the communicator. Threads: the training thread. Errors: as
// Communicator::register_memory.
#pragma once

#include <vector>

#include "comm/communicator.h"
#include "runtime/base/check.h"
#include "runtime/device/arena.h"

namespace strake::comm {

class RegisteredMemory {
 public:
  explicit RegisteredMemory(Communicator& communicator) : communicator_(communicator) {}
  ~RegisteredMemory() {
    for (auto arena = arenas_.rbegin(); arena != arenas_.rend(); ++arena) communicator_.forget_memory(**arena);
  }
  RegisteredMemory(const RegisteredMemory&) = delete;
  RegisteredMemory& operator=(const RegisteredMemory&) = delete;

  // Collective, see Communicator::register_memory. An arena without bytes is none.
  void add(const Arena& arena) {
    STRAKE_CHECK(arena.allocated(), "'" + arena.name() + "' is registered before it has memory");
    if (arena.size_bytes() == 0) return;
    communicator_.register_memory(arena);
    arenas_.push_back(&arena);
  }

 private:
  Communicator& communicator_;
  std::vector<const Arena*> arenas_;
};

}  // namespace strake::comm
