// Which sequence of the token file is sample number g of a run: a pure function, with O(1) seek.
//
// Sample g (counted from 0 over the whole run) is sequence permutation(seed, epoch)(g mod S) of the file,
// epoch = g / S, S = number of whole sequences. Step k with global batch B consumes samples [k*B, (k+1)*B),
// whatever the world size; rank r of R takes the r-th R-th part of them, micro-batches in order.
// The permutation is a keyed Feistel network on [0, S) with cycle walking (Black and Rogaway 2002). Resumed runs
// depend on its values: they are pinned by a test and never change.
// Threads: values; any. Errors: none.
#pragma once

#include <cstdint>

namespace strake::data {

class SampleOrder {
 public:
  // Shuffled per epoch. REQUIRES: sequences >= 1.
  static SampleOrder shuffled(std::uint64_t seed, std::int64_t sequences);
  // Sample g is sequence g mod S: for evaluation. REQUIRES: sequences >= 1.
  static SampleOrder sequential(std::int64_t sequences);

  // Index of the sequence, in [0, sequences()). REQUIRES: sample >= 0.
  std::int64_t sequence_of(std::int64_t sample) const;
  std::int64_t sequences() const { return sequences_; }

 private:
  SampleOrder(std::uint64_t seed, std::int64_t sequences, bool shuffled);

  std::uint64_t seed_;
  std::int64_t sequences_;
  bool shuffled_;
};

}  // namespace strake::data
