// Causal attention without ever holding a whole row of scores. Queries lie in lanes: a tile of kTile queries is
// turned once (q^T, [head_size][kTile]), then every product is "numbers broadcast from memory as it lies" times
// "vectors of the tile", and the softmax needs no sum across lanes:
//
//   forward:   s^T = k q^T,  p = exp(s^T - maximum so far),  o^T += v^T p
//   backward:  s^T = k q^T,  dp^T = v do^T,  dq^T += k^T ds^T,  dv += p do,  dk += ds q
//
// Keys behind a vector's last query are never touched; on the diagonal a vector is masked.

#include <utility>

#include "kernels/cpu/vector/kernels.h"
#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {
namespace {

constexpr int kTileVectors = 2;
constexpr std::int64_t kTile = kTileVectors * kLanes;  // queries
constexpr std::int64_t kKeys = 64;                     // in a block: p of a tile stays in the first-level cache
constexpr std::int64_t kLargestHead = 256;             // the tiles lie on the stack
constexpr int kBlockRows = kLanes == 16 ? 8 : 4;       // as many sums as the registers hold

// c(r, :) (+)= sum over s of a(r, s) b(s, :), with a(r, s) = a[r * a_row + s * a_step] and rows of b and c whole
// vectors.
template <int kRows, int kVectors, bool kAdd>
[[gnu::always_inline]] inline void product_block(float* c, std::int64_t c_row, const float* a, std::int64_t a_row,
                                                 std::int64_t a_step, const float* b, std::int64_t b_row,
                                                 std::int64_t steps) {
  Lanes sums[kRows][kVectors] = {};
  for (std::int64_t s = 0; s < steps; ++s) {
    Lanes b_part[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) b_part[v] = load(b + s * b_row + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float factor = a[r * a_row + s * a_step];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] += factor * b_part[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* const to = c + r * c_row + v * kLanes;
      store(to, kAdd ? load(to) + sums[r][v] : sums[r][v]);
    }
  }
}

// The same for any number of rows.
template <int kVectors, bool kAdd>
inline void product_columns(float* c, std::int64_t c_row, const float* a, std::int64_t a_row, std::int64_t a_step,
                            const float* b, std::int64_t b_row, std::int64_t rows, std::int64_t steps) {
  std::int64_t r = 0;
  for (; r + kBlockRows <= rows; r += kBlockRows) {
    product_block<kBlockRows, kVectors, kAdd>(c + r * c_row, c_row, a + r * a_row, a_row, a_step, b, b_row, steps);
  }
  for (; r < rows; ++r) {
    product_block<1, kVectors, kAdd>(c + r * c_row, c_row, a + r * a_row, a_row, a_step, b, b_row, steps);
  }
}

// The same for any number of rows and of vectors in a row.
template <bool kAdd>
inline void product(float* c, std::int64_t c_row, const float* a, std::int64_t a_row, std::int64_t a_step,
                    const float* b, std::int64_t b_row, std::int64_t rows, std::int64_t columns, std::int64_t steps) {
  std::int64_t j = 0;
  for (; j + kTile <= columns; j += kTile) {
    product_columns<kTileVectors, kAdd>(c + j, c_row, a, a_row, a_step, b + j, b_row, rows, steps);
  }
  for (; j < columns; j += kLanes) {
    product_columns<1, kAdd>(c + j, c_row, a, a_row, a_step, b + j, b_row, rows, steps);
  }
}

// Turns a square block of kLanes rows in registers: exchanges ever larger halves of pairs of rows.
template <int kStep, int... kLane>
[[gnu::always_inline]] inline void exchange_halves(Lanes* rows, std::integer_sequence<int, kLane...>) {
#pragma GCC unroll 16
  for (int r = 0; r < kLanes; ++r) {
    if ((r & kStep) != 0) continue;
    const Lanes a = rows[r];
    const Lanes b = rows[r + kStep];
    rows[r] = __builtin_shufflevector(a, b, ((kLane & kStep) == 0 ? kLane : kLanes + kLane - kStep)...);
    rows[r + kStep] = __builtin_shufflevector(a, b, ((kLane & kStep) == 0 ? kLane + kStep : kLanes + kLane)...);
  }
}
template <int kStep = 1>
[[gnu::always_inline]] inline void turn(Lanes* rows) {
  if constexpr (kStep < kLanes) {
    exchange_halves<kStep>(rows, std::make_integer_sequence<int, kLanes>());
    turn<2 * kStep>(rows);
  }
}

// to[d][i] = factor * from[i * stride + d] for `queries` rows; zero in the rest of the tile.
void turn_in(float* to, const float* from, std::int64_t stride, std::int64_t queries, std::int64_t size, float factor) {
  for_lanes(size, [&](std::int64_t d, auto part) {
    for (std::int64_t i = 0; i < kTile; i += kLanes) {
      Lanes rows[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        rows[r] = i + r < queries ? factor * load(from + (i + r) * stride + d, part) : Lanes{};
      }
      turn(rows);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        if (d + r < size) store(to + (d + r) * kTile + i, rows[r]);
      }
    }
  });
}

// to[i * stride + d] = factor[i] * from[d][i]
void turn_out(float* to, std::int64_t stride, const float* from, const float* factor, std::int64_t queries,
              std::int64_t size) {
  for_lanes(size, [&](std::int64_t d, auto part) {
    for (std::int64_t i = 0; i < queries; i += kLanes) {
      const Lanes factors = load(factor + i);
      Lanes rows[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        rows[r] = d + r < size ? factors * load(from + (d + r) * kTile + i) : Lanes{};
      }
      turn(rows);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        if (i + r < queries) store(to + (i + r) * stride + d, rows[r], part);
      }
    }
  });
}

// Rows of a head side by side, `padded` elements each with zeros behind `size`.
void gather_rows(float* to, std::int64_t padded, const float* from, std::int64_t stride, std::int64_t rows,
                 std::int64_t size, float factor) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for_lanes(size, [&](std::int64_t d, auto part) {
      store(to + i * padded + d, factor * load(from + i * stride + d, part));  // the whole vector
    });
  }
}

// Query number of each lane of vector v of the tile that starts at `first`.
inline IntLanes query_numbers(std::int64_t first, int v) {
  return lane_numbers() + static_cast<std::int32_t>(first + v * kLanes);
}

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
std::int64_t whole_vectors(std::int64_t elems) { return (elems + kLanes - 1) / kLanes * kLanes; }

struct Tile {
  alignas(64) float data[kLargestHead * kTile];
};

struct Scores {
  alignas(64) float data[kKeys * kTile];
};

// The keys from `begin` on that a tile treats alike: up to kKeys, cut where a further vector of queries sees no more.
struct KeyRange {
  std::int64_t hidden;  // queries of the tile, a multiple of kLanes, that see none of these keys
  std::int64_t keys;
};
KeyRange key_range(std::int64_t begin, std::int64_t first, std::int64_t keys_end) {
  const std::int64_t hidden = begin > first ? (begin - first) / kLanes * kLanes : 0;
  return {hidden, smaller(keys_end, smaller(begin + kKeys, first + hidden + kLanes)) - begin};
}

void forward_tile(float* out, float* stats, const float* q, const float* k, const float* v, std::int64_t first,
                  std::int64_t length, std::int64_t size, std::int64_t channels) {
  const std::int64_t stride = 3 * channels;
  const std::int64_t queries = smaller(kTile, length - first);
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(size));
  Tile q_turned;
  Tile o_turned;
  Scores scores;
  turn_in(q_turned.data, q + first * stride, stride, queries, size, scale);
  for (std::int64_t i = 0; i < size * kTile; i += kLanes) store(o_turned.data + i, Lanes{});
  Lanes highest[kTileVectors];
  Lanes total[kTileVectors] = {};
  for (int t = 0; t < kTileVectors; ++t) highest[t] = broadcast(-__builtin_inff());

  const std::int64_t keys_end = first + queries;
  for (std::int64_t begin = 0, keys = 0; begin < keys_end; begin += keys) {
    const KeyRange range = key_range(begin, first, keys_end);
    const std::int64_t hidden = range.hidden;
    keys = range.keys;
    product<false>(scores.data + hidden, kTile, k + begin * stride, stride, 1, q_turned.data + hidden, kTile, keys,
                   kTile - hidden, size);
    for (auto t = static_cast<int>(hidden / kLanes); t < kTileVectors; ++t) {
      float* const column = scores.data + t * kLanes;
      if (begin + keys > first) {  // on the diagonal: what a query may not see
        const IntLanes query = query_numbers(first, t);
        for (std::int64_t j = first > begin ? first - begin : 0; j < keys; ++j) {
          const Lanes s = load(column + j * kTile);
          store(column + j * kTile, query < static_cast<std::int32_t>(begin + j) ? broadcast(-__builtin_inff()) : s);
        }
      }
      Lanes new_highest = highest[t];
      for (std::int64_t j = 0; j < keys; ++j) new_highest = maximum(new_highest, load(column + j * kTile));
      // Every query sees key 0, so that the first block already makes `highest` finite.
      const Lanes shrink = exponential(highest[t] - new_highest);
      highest[t] = new_highest;
      Lanes block_total = {};
      for (std::int64_t j = 0; j < keys; ++j) {
        const Lanes p = exponential(load(column + j * kTile) - new_highest);
        block_total += p;
        store(column + j * kTile, p);
      }
      total[t] = total[t] * shrink + block_total;
      if (begin > 0) {
        for (std::int64_t d = 0; d < size; ++d) {
          float* const o = o_turned.data + d * kTile + t * kLanes;
          store(o, load(o) * shrink);
        }
      }
    }
    product<true>(o_turned.data + hidden, kTile, v + begin * stride, 1, stride, scores.data + hidden, kTile, size,
                  kTile - hidden, keys);
  }

  float totals[kTile];
  float highests[kTile];
  float factors[kTile];
  for (int t = 0; t < kTileVectors; ++t) {
    store(totals + t * kLanes, total[t]);
    store(highests + t * kLanes, highest[t]);
    store(factors + t * kLanes, 1.0f / total[t]);
  }
  turn_out(out + first * channels, channels, o_turned.data, factors, queries, size);
  for (std::int64_t i = 0; i < queries; ++i) stats[first + i] = highests[i] + __builtin_logf(totals[i]);
}

// dq of one tile; adds to dk and dv, [length][padded].
void backward_tile(float* dq, float* dk, float* dv, const float* dout, const float* q, const float* k, const float* v,
                   const float* out, const float* stats, std::int64_t first, std::int64_t length, std::int64_t size,
                   std::int64_t channels) {
  const std::int64_t stride = 3 * channels;
  const std::int64_t padded = whole_vectors(size);
  const std::int64_t queries = smaller(kTile, length - first);
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(size));
  Tile q_turned;
  Tile q_rows;
  Tile dout_turned;
  Tile dout_rows;
  Tile dq_turned;
  Scores p;
  Scores ds;
  turn_in(q_turned.data, q + first * stride, stride, queries, size, scale);
  turn_in(dout_turned.data, dout + first * channels, channels, queries, size, 1.0f);
  gather_rows(q_rows.data, padded, q + first * stride, stride, queries, size, scale);
  gather_rows(dout_rows.data, padded, dout + first * channels, channels, queries, size, 1.0f);
  for (std::int64_t i = 0; i < size * kTile; i += kLanes) store(dq_turned.data + i, Lanes{});

  // Of each query: log of the softmax's sum, and dout . out.
  float log_sums[kTile] = {};
  float row_sums[kTile] = {};
  for (std::int64_t i = 0; i < queries; ++i) {
    const std::int64_t row = (first + i) * channels;
    Lanes products = {};
    for_lanes(size,
              [&](std::int64_t d, auto part) { products += load(dout + row + d, part) * load(out + row + d, part); });
    row_sums[i] = sum(products);
    log_sums[i] = stats[first + i];
  }

  const std::int64_t keys_end = first + queries;
  for (std::int64_t begin = 0, keys = 0; begin < keys_end; begin += keys) {
    const KeyRange range = key_range(begin, first, keys_end);
    const std::int64_t hidden = range.hidden;
    keys = range.keys;
    product<false>(p.data + hidden, kTile, k + begin * stride, stride, 1, q_turned.data + hidden, kTile, keys,
                   kTile - hidden, size);
    product<false>(ds.data + hidden, kTile, v + begin * stride, stride, 1, dout_turned.data + hidden, kTile, keys,
                   kTile - hidden, size);
    for (auto t = static_cast<int>(hidden / kLanes); t < kTileVectors; ++t) {
      const IntLanes query = query_numbers(first, t);
      const Lanes log_sum = load(log_sums + t * kLanes);
      const Lanes row_sum = load(row_sums + t * kLanes);
      for (std::int64_t j = 0; j < keys; ++j) {
        float* const p_at = p.data + j * kTile + t * kLanes;
        float* const ds_at = ds.data + j * kTile + t * kLanes;
        const Lanes weight = exponential(load(p_at) - log_sum);
        const Lanes seen = query < static_cast<std::int32_t>(begin + j) ? Lanes{} : weight;
        store(p_at, seen);
        store(ds_at, seen * (load(ds_at) - row_sum));
      }
    }
    product<true>(dq_turned.data + hidden, kTile, k + begin * stride, 1, stride, ds.data + hidden, kTile, size,
                  kTile - hidden, keys);
    product<true>(dv + begin * padded, padded, p.data + hidden, kTile, 1, dout_rows.data + hidden * padded, padded,
                  keys, padded, queries - hidden);
    product<true>(dk + begin * padded, padded, ds.data + hidden, kTile, 1, q_rows.data + hidden * padded, padded, keys,
                  padded, queries - hidden);
  }
  float factors[kTile];
  for (float& factor : factors) factor = scale;
  turn_out(dq + first * stride, stride, dq_turned.data, factors, queries, size);
}

}  // namespace

void attention_forward(float* out, float* stats, const float* qkv, const reference::AttentionShape& shape) {
  if (shape.head_size > kLargestHead) return reference::attention_forward(out, stats, qkv, shape);
  const std::int64_t channels = shape.heads * shape.head_size;
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const float* const q = qkv + b * shape.length * 3 * channels + h * shape.head_size;
      for (std::int64_t first = 0; first < shape.length; first += kTile) {
        forward_tile(out + b * shape.length * channels + h * shape.head_size,
                     stats + (b * shape.heads + h) * shape.length, q, q + channels, q + 2 * channels, first,
                     shape.length, shape.head_size, channels);
      }
    }
  }
}

void attention_backward(float* dqkv, const float* dout, const float* qkv, const float* out, const float* stats,
                        float* scratch, const reference::AttentionShape& shape) {
  if (shape.head_size > kLargestHead) {
    return reference::attention_backward(dqkv, dout, qkv, out, stats, scratch, shape);
  }
  const std::int64_t size = shape.head_size;
  const std::int64_t padded = whole_vectors(size);
  const std::int64_t channels = shape.heads * size;
  float* const dk = scratch;  // [length][padded] each, of one head
  float* const dv = dk + shape.length * padded;
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const std::int64_t qkv_first = b * shape.length * 3 * channels + h * size;
      const std::int64_t out_first = b * shape.length * channels + h * size;
      const float* const q = qkv + qkv_first;
      float* const dq = dqkv + qkv_first;
      for (std::int64_t i = 0; i < 2 * shape.length * padded; i += kLanes) store(scratch + i, Lanes{});
      for (std::int64_t first = 0; first < shape.length; first += kTile) {
        backward_tile(dq, dk, dv, dout + out_first, q, q + channels, q + 2 * channels, out + out_first,
                      stats + (b * shape.heads + h) * shape.length, first, shape.length, size, channels);
      }
      for (std::int64_t j = 0; j < shape.length; ++j) {
        float* const dk_row = dq + j * 3 * channels + channels;
        float* const dv_row = dk_row + channels;
        for_lanes(size, [&](std::int64_t d, auto part) {
          store(dk_row + d, load(dk + j * padded + d), part);
          store(dv_row + d, load(dv + j * padded + d), part);
        });
      }
    }
  }
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
