// MemoryLives: when is what lies in a block of memory needed, and which blocks may share bytes?
//
// A block has *lives*. Each begins with a full overwrite, by one operation that writes every byte of the block and
// reads none of them, and lasts to the last access before the next full overwrite. Between two lives nobody misses the
// bytes. A block whose first access in the step is no full overwrite carries something from step to step and lives
// through all of it, as does one whose own accesses the waits do not order.
//
// Two blocks may share bytes if and only if all their lives are ordered by the waits that are there, within the step
// and from its end to the beginning of the next: vector clocks (stream_clocks.h) over the recording and over its
// repetition. Sharing never asks for a wait. A wait for an event that is recorded only in an earlier step counts for
// nothing here: of a ring of events it may be much older than the step before.
// Threads: the training thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/device/recording.h"

namespace strake {

struct MemoryLife {
  std::size_t first_entry = 0;  // of the recording
  std::size_t last_entry = 0;
};

struct MemoryBlock {
  std::string name;
  std::size_t size_bytes = 0;
  std::size_t planning_offset_bytes = 0;
  std::size_t offset_bytes = 0;        // in the real arena
  std::vector<MemoryLife> lives = {};  // in order; none: no operation touches it

  bool alive_at(std::size_t entry) const;
};

class MemoryLives {
 public:
  // Sets the lives of `blocks`, which were reserved in `planning` one after the other.
  MemoryLives(std::vector<MemoryBlock>& blocks, const Arena& planning, const Recording& recording);

  bool may_share(std::size_t a, std::size_t b) const { return !bit(a, b); }

 private:
  bool bit(std::size_t row, std::size_t column) const {
    return (apart_[row * words_ + column / 64] >> (column % 64) & 1) != 0;
  }
  void set_bit(std::size_t row, std::size_t column) {
    apart_[row * words_ + column / 64] |= std::uint64_t{1} << (column % 64);
  }
  void keep_apart_what_lives_together(const std::vector<MemoryBlock>& blocks);
  void mirror();

  std::size_t words_;                 // of a row: blocks are looked at by 64, which the number of pairs asks for
  std::vector<std::uint64_t> apart_;  // [blocks rounded up to 64][words]: a bit for each two blocks, in both orders
};

}  // namespace strake
