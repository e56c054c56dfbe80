// ThreadsGroup: the state that the ranks of one communicator (or control) of a ThreadsWorld share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "comm/threads/board.h"
#include "runtime/base/dtype.h"

namespace strake::comm {

// What a rank says of a collective when it gets there. Pointers are valid until the round that ends the collective.
struct CollectiveNote {
  const char* kind = nullptr;
  DType dtype = DType::kU8;
  std::int64_t elems = 0;  // that all ranks must agree on
  int root = -1;
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  const std::vector<std::int64_t>* recv_elems = nullptr;  // of all_to_all
  const std::vector<std::int64_t>* send_elems = nullptr;
};

// What a rank says at a blocking call.
struct CallNote {
  std::string call;  // the same on all ranks
  std::string text;
};

class ThreadsGroup {
 public:
  ThreadsGroup(std::string name, std::vector<int> world_ranks, FailureNotice& notice)
      : name_(std::move(name)),
        world_ranks_(std::move(world_ranks)),
        collectives_(notice, world_ranks_),
        posted_(notice, world_ranks_),
        blocking_(notice, world_ranks_) {}

  const std::string& name() const { return name_; }
  int size() const { return static_cast<int>(world_ranks_.size()); }
  const std::vector<int>& world_ranks() const { return world_ranks_; }

  Board<CollectiveNote>& collectives() { return collectives_; }  // stream workers
  Board<std::string>& posted() { return posted_; }               // Control::post and finish
  Board<CallNote>& blocking() { return blocking_; }              // training threads: the rest of Control, split

  // `rank` has destroyed its handle.
  void leave(int rank) {
    collectives_.leave(rank);
    posted_.leave(rank);
    blocking_.leave(rank);
  }

 private:
  const std::string name_;
  const std::vector<int> world_ranks_;
  Board<CollectiveNote> collectives_;
  Board<std::string> posted_;
  Board<CallNote> blocking_;
};

}  // namespace strake::comm
