#include "runtime/device/memory_lives.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/device/stream_clocks.h"

namespace strake {
namespace {

// What one operation does to one block.
struct Touch {
  std::size_t block;
  bool overwrites;  // every byte, and reads none
};

// Finds what operations do to the blocks of a planning arena.
class Touches {
 public:
  Touches(const std::vector<MemoryBlock>& blocks, const Arena& planning) : blocks_(blocks), planning_(planning) {}

  // One a block. Valid until the next call.
  const std::vector<Touch>& of(const RecordedEntry& operation) {
    accesses_.clear();
    touches_.clear();
    for (const RecordedAccess& access : operation.reads) add(access, true);
    for (const RecordedAccess& access : operation.writes) add(access, false);
    std::ranges::sort(accesses_, {}, [](const Access& access) { return std::tuple(access.block, access.begin_bytes); });
    for (auto access = accesses_.begin(); access != accesses_.end();) {
      const std::size_t block = access->block;
      std::size_t covered_bytes = 0;
      bool reads = false;
      for (; access != accesses_.end() && access->block == block; ++access) {
        reads = reads || access->reads;
        if (access->dense && access->begin_bytes <= covered_bytes) {
          covered_bytes = std::max(covered_bytes, access->end_bytes);
        }
      }
      touches_.push_back({block, !reads && covered_bytes == blocks_[block].size_bytes});
    }
    return touches_;
  }

 private:
  struct Access {
    std::size_t block, begin_bytes, end_bytes;  // within the block
    bool reads, dense;
  };

  void add(const RecordedAccess& access, bool reads) {
    if (access.arena != &planning_ || access.begin_bytes == access.end_bytes) return;
    const auto after = std::ranges::upper_bound(blocks_, access.begin_bytes, {}, &MemoryBlock::planning_offset_bytes);
    STRAKE_CHECK(after != blocks_.begin(), "an access of the planning arena lies in no block");
    const MemoryBlock& block = *std::prev(after);
    STRAKE_CHECK(access.end_bytes <= block.planning_offset_bytes + block.size_bytes,
                 "an access reaches past '" + block.name + "'");
    accesses_.push_back({static_cast<std::size_t>(&block - blocks_.data()),
                         access.begin_bytes - block.planning_offset_bytes,
                         access.end_bytes - block.planning_offset_bytes, reads, access.dense});
  }

  const std::vector<MemoryBlock>& blocks_;
  const Arena& planning_;
  std::vector<Access> accesses_;
  std::vector<Touch> touches_;
};

// A life as the clocks see it.
struct OrderedLife {
  MemoryLife entries;
  Moment begin;
  Clock behind;     // what the operation that begins it is behind
  Clock last = {};  // of each stream, the last operation that belongs to it; 0: none

  void add(std::size_t entry, const Moment& operation) {
    entries.last_entry = entry;
    const auto stream = static_cast<std::size_t>(operation.stream);
    if (last.size() <= stream) last.resize(stream + 1, 0);
    last[stream] = operation.number;
  }
  // Are all its operations among those that `now` is behind?
  bool over(const Clock& now) const {
    for (std::size_t stream = 0; stream < last.size(); ++stream) {
      if (last[stream] > 0 && !ordered({static_cast<int>(stream), last[stream]}, now)) return false;
    }
    return true;
  }
};

class OrderedBlock {
 public:
  // An operation of the step, `behind` what it is behind.
  void touch(bool overwrites, std::size_t entry, const Moment& operation, const Clock& behind) {
    if (whole_step_) return;
    stream_ = lives_.empty() || stream_ == operation.stream ? operation.stream : kSeveral;
    if (overwrites) {
      whole_step_ = !lives_.empty() && !lives_.back().over(behind);
      lives_.push_back({.entries = {entry, entry}, .begin = operation, .behind = behind});
    } else {
      whole_step_ = lives_.empty() || !ordered(lives_.back().begin, behind);
    }
    if (!whole_step_) lives_.back().add(entry, operation);
  }
  // The same operation in the next step.
  void touch_again(std::size_t entry, const Clock& behind) {
    if (whole_step_ || entry != lives_.front().entries.first_entry) return;
    begins_again_behind_ = behind;
    whole_step_ = !lives_.back().over(behind);
  }

  bool used() const { return whole_step_ || !lives_.empty(); }
  // It has no lives of its own.
  bool whole_step() const { return whole_step_; }
  const std::vector<OrderedLife>& lives() const { return lives_; }
  // Of all its operations; negative: several.
  int stream() const { return stream_; }

  // May two blocks with lives that do not meet share bytes? Each block's own lives are ordered, so it is enough to look
  // where one block's turn follows the other's, and from the last turn of a step to the first of the next.
  // Between blocks of one stream its order is enough: they need not be asked about.
  friend bool take_turns(const OrderedBlock& a, const OrderedBlock& b) {
    const OrderedBlock* of_first = nullptr;
    const OrderedBlock* of_earlier = nullptr;
    const OrderedLife* earlier = nullptr;
    auto next_a = a.lives_.begin(), next_b = b.lives_.begin();
    while (next_a != a.lives_.end() || next_b != b.lives_.end()) {
      const bool is_a = next_b == b.lives_.end() ||
                        (next_a != a.lives_.end() && next_a->entries.first_entry < next_b->entries.first_entry);
      const OrderedBlock* const of_life = is_a ? &a : &b;
      const OrderedLife& life = is_a ? *next_a++ : *next_b++;
      if (of_first == nullptr) of_first = of_life;
      if (earlier != nullptr && of_earlier != of_life && !earlier->over(life.behind)) return false;
      earlier = &life;
      of_earlier = of_life;
    }
    return of_earlier == of_first || earlier->over(of_first->begins_again_behind_);
  }

 private:
  static constexpr int kSeveral = -1;

  std::vector<OrderedLife> lives_;
  Clock begins_again_behind_;  // what the first life of the next step is behind
  bool whole_step_ = false;
  int stream_ = kSeveral;
};

// visit(repetition, entry, operation, behind) for every operation of a step, and again for the step after.
template <typename Visit>
void walk(const Recording& recording, Visit visit) {
  StreamClocks clocks;
  for (std::size_t repetition = 0; repetition < 2; ++repetition) {
    std::vector<std::optional<Clock>> recorded;  // by event, in this step
    for (std::size_t i = 0; i < recording.entries.size(); ++i) {
      const RecordedEntry& entry = recording.entries[i];
      const auto event = static_cast<std::size_t>(entry.event);
      switch (entry.kind) {
        case RecordedEntry::Kind::kOperation: {
          const Clock behind = clocks.now(entry.stream);
          visit(repetition, i, clocks.launch(entry.stream), behind);
          break;
        }
        case RecordedEntry::Kind::kRecord:
          if (recorded.size() <= event) recorded.resize(event + 1);
          recorded[event] = clocks.now(entry.stream);
          break;
        case RecordedEntry::Kind::kWait:
          if (event < recorded.size() && recorded[event].has_value()) clocks.wait(entry.stream, *recorded[event]);
          break;
        case RecordedEntry::Kind::kMark:
          break;
      }
    }
  }
}

std::vector<OrderedBlock> find_lives(const std::vector<MemoryBlock>& blocks, const Arena& planning,
                                     const Recording& recording) {
  std::vector<OrderedBlock> out(blocks.size());
  Touches touches(blocks, planning);
  walk(recording, [&](std::size_t repetition, std::size_t entry, const Moment& operation, const Clock& behind) {
    for (const Touch& touch : touches.of(recording.entries[entry])) {
      if (repetition == 0) {
        out[touch.block].touch(touch.overwrites, entry, operation, behind);
      } else {
        out[touch.block].touch_again(entry, behind);
      }
    }
  });
  return out;
}

void add_bit(std::vector<std::uint64_t>& bits, std::size_t index) {
  bits[index / 64] |= std::uint64_t{1} << (index % 64);
}

// 64 rows of 64 bits. Quarters change places, then quarters of those.
using Tile = std::array<std::uint64_t, 64>;
void transpose(Tile& tile) {
  std::uint64_t low_half = 0x0000'0000'ffff'ffff;  // of every column pair of this width
  for (std::size_t width = 32; width != 0; width /= 2, low_half ^= low_half << width) {
    for (std::size_t row = 0; row < tile.size(); row = (row + width + 1) & ~width) {
      const std::uint64_t swap = (tile[row] >> width ^ tile[row + width]) & low_half;
      tile[row] ^= swap << width;
      tile[row + width] ^= swap;
    }
  }
}

}  // namespace

bool MemoryBlock::alive_at(std::size_t entry) const {
  return std::ranges::any_of(
      lives, [entry](const MemoryLife& life) { return life.first_entry <= entry && entry <= life.last_entry; });
}

MemoryLives::MemoryLives(std::vector<MemoryBlock>& blocks, const Arena& planning, const Recording& recording)
    : words_((blocks.size() + 63) / 64), apart_(64 * words_ * words_) {
  const std::vector<OrderedBlock> found = find_lives(blocks, planning, recording);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    std::vector<MemoryLife>& lives = blocks[i].lives;
    lives.clear();
    if (found[i].whole_step()) {
      lives.push_back({0, recording.entries.size() - 1});
    } else {
      for (const OrderedLife& life : found[i].lives()) lives.push_back(life.entries);
    }
  }
  keep_apart_what_lives_together(blocks);
  mirror();
  // Those that the clocks are asked about. What lives through the step has met everything that is used.
  std::vector<std::uint64_t> used(words_);
  std::map<int, std::vector<std::uint64_t>> of_stream;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!found[i].used()) continue;
    add_bit(used, i);
    if (found[i].stream() >= 0) add_bit(of_stream.try_emplace(found[i].stream(), words_).first->second, i);
  }
  for (std::size_t a = 0; a < blocks.size(); ++a) {
    if (!found[a].used()) continue;
    const auto stream = of_stream.find(found[a].stream());
    for (std::size_t word = 0; word <= a / 64; ++word) {
      std::uint64_t others = used[word] & ~apart_[a * words_ + word];
      if (stream != of_stream.end()) others &= ~stream->second[word];
      for (; others != 0; others &= others - 1) {
        const std::size_t b = word * 64 + static_cast<std::size_t>(std::countr_zero(others));
        if (b >= a || take_turns(found[a], found[b])) continue;
        set_bit(a, b);
        set_bit(b, a);
      }
    }
  }
}

// Sweeps over the recording with the set of blocks alive: each meets those that live when it begins.
void MemoryLives::keep_apart_what_lives_together(const std::vector<MemoryBlock>& blocks) {
  struct Turn {
    std::size_t entry;
    bool ends;  // behind the entry
    std::size_t block;
  };
  std::vector<Turn> turns;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (const MemoryLife& life : blocks[i].lives) {
      turns.push_back({life.first_entry, false, i});
      turns.push_back({life.last_entry, true, i});
    }
  }
  std::ranges::sort(turns, {}, [](const Turn& turn) { return std::tuple(turn.entry, turn.ends); });
  std::vector<std::uint64_t> alive(words_);
  for (const Turn& turn : turns) {
    const std::uint64_t mask = std::uint64_t{1} << (turn.block % 64);
    if (turn.ends) {
      alive[turn.block / 64] &= ~mask;
      continue;
    }
    for (std::size_t word = 0; word < words_; ++word) apart_[turn.block * words_ + word] |= alive[word];
    alive[turn.block / 64] |= mask;
  }
}

// Makes "a meets b" also "b meets a".
void MemoryLives::mirror() {
  Tile tile, mirrored;
  for (std::size_t rows = 0; rows < words_; ++rows) {
    for (std::size_t columns = 0; columns <= rows; ++columns) {
      for (std::size_t i = 0; i < 64; ++i) {
        tile[i] = apart_[(64 * rows + i) * words_ + columns];
        mirrored[i] = apart_[(64 * columns + i) * words_ + rows];
      }
      transpose(tile);
      for (std::size_t i = 0; i < 64; ++i) apart_[(64 * columns + i) * words_ + rows] |= tile[i];
      transpose(mirrored);
      for (std::size_t i = 0; i < 64; ++i) apart_[(64 * rows + i) * words_ + columns] |= mirrored[i];
    }
  }
}

}  // namespace strake
