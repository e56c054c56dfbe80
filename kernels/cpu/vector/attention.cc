// Causal attention without ever holding a whole row of scores. Queries lie in lanes: a tile of kTile queries is
// turned once (q^T, [head_size][kTile]), then every product is "numbers broadcast from memory as it lies" times
// "vectors of the tile", and the softmax needs no sum across lanes:
//
//   forward:   s^T = k q^T,  p = exp(s^T - maximum so far),  o^T += v^T p
//   backward:  s^T = k q^T,  dp^T = v do^T,  dq^T += k^T ds^T,  dv += p do,  dk += ds q
//
// dk and dv of a key head add up in the scratch, over its query heads and their tiles in order.
// Keys behind a vector's last query are never touched; on the diagonal a vector is masked.

#include "kernels/attention.h"

#include <utility>

#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {
namespace {

constexpr int kTileVectors = 2;
constexpr std::int64_t kTile = kTileVectors * kLanes;  // queries
constexpr std::int64_t kKeys = 64;                     // in a block: p of a tile stays in the first-level cache
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
  alignas(64) float data[kMostVectorHeadSize * kTile];
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

// The tokens of one head: row t begins at data + t * stride.
template <typename T>
struct Rows {
  T* data;
  std::int64_t stride;
};
template <typename T>
Rows<T> rows_of(const Heads<T>& heads, std::int64_t batch, std::int64_t head) {
  return {heads.data + batch * heads.stride.batch + head * heads.stride.head, heads.stride.token};
}

void forward_tile(Rows<float> out, float* stats, Rows<const float> q, Rows<const float> k, Rows<const float> v,
                  std::int64_t first, std::int64_t length, std::int64_t size) {
  const std::int64_t queries = smaller(kTile, length - first);
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(size));
  Tile q_turned;
  Tile o_turned;
  Scores scores;
  turn_in(q_turned.data, q.data + first * q.stride, q.stride, queries, size, scale);
  for (std::int64_t i = 0; i < size * kTile; i += kLanes) store(o_turned.data + i, Lanes{});
  Lanes highest[kTileVectors];
  Lanes total[kTileVectors] = {};
  for (int t = 0; t < kTileVectors; ++t) highest[t] = broadcast(-__builtin_inff());

  const std::int64_t keys_end = first + queries;
  for (std::int64_t begin = 0, keys = 0; begin < keys_end; begin += keys) {
    const KeyRange range = key_range(begin, first, keys_end);
    const std::int64_t hidden = range.hidden;
    keys = range.keys;
    product<false>(scores.data + hidden, kTile, k.data + begin * k.stride, k.stride, 1, q_turned.data + hidden, kTile,
                   keys, kTile - hidden, size);
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
    product<true>(o_turned.data + hidden, kTile, v.data + begin * v.stride, 1, v.stride, scores.data + hidden, kTile,
                  size, kTile - hidden, keys);
  }

  float totals[kTile];
  float highests[kTile];
  float factors[kTile];
  for (int t = 0; t < kTileVectors; ++t) {
    store(totals + t * kLanes, total[t]);
    store(highests + t * kLanes, highest[t]);
    store(factors + t * kLanes, 1.0f / total[t]);
  }
  turn_out(out.data + first * out.stride, out.stride, o_turned.data, factors, queries, size);
  for (std::int64_t i = 0; i < queries; ++i) stats[first + i] = highests[i] + __builtin_logf(totals[i]);
}

// dq of one tile; adds to dk and dv, [length][padded].
void backward_tile(Rows<float> dq, float* dk, float* dv, Rows<const float> dout, Rows<const float> q,
                   Rows<const float> k, Rows<const float> v, Rows<const float> out, const float* stats,
                   std::int64_t first, std::int64_t length, std::int64_t size) {
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
  turn_in(q_turned.data, q.data + first * q.stride, q.stride, queries, size, scale);
  turn_in(dout_turned.data, dout.data + first * dout.stride, dout.stride, queries, size, 1.0f);
  gather_rows(q_rows.data, padded, q.data + first * q.stride, q.stride, queries, size, scale);
  gather_rows(dout_rows.data, padded, dout.data + first * dout.stride, dout.stride, queries, size, 1.0f);
  for (std::int64_t i = 0; i < size * kTile; i += kLanes) store(dq_turned.data + i, Lanes{});

  // Of each query: log of the softmax's sum, and dout . out.
  float log_sums[kTile] = {};
  float row_sums[kTile] = {};
  for (std::int64_t i = 0; i < queries; ++i) {
    const float* const dout_row = dout.data + (first + i) * dout.stride;
    const float* const out_row = out.data + (first + i) * out.stride;
    Lanes products = {};
    for_lanes(size, [&](std::int64_t d, auto part) { products += load(dout_row + d, part) * load(out_row + d, part); });
    row_sums[i] = sum(products);
    log_sums[i] = stats[first + i];
  }

  const std::int64_t keys_end = first + queries;
  for (std::int64_t begin = 0, keys = 0; begin < keys_end; begin += keys) {
    const KeyRange range = key_range(begin, first, keys_end);
    const std::int64_t hidden = range.hidden;
    keys = range.keys;
    product<false>(p.data + hidden, kTile, k.data + begin * k.stride, k.stride, 1, q_turned.data + hidden, kTile, keys,
                   kTile - hidden, size);
    product<false>(ds.data + hidden, kTile, v.data + begin * v.stride, v.stride, 1, dout_turned.data + hidden, kTile,
                   keys, kTile - hidden, size);
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
    product<true>(dq_turned.data + hidden, kTile, k.data + begin * k.stride, 1, k.stride, ds.data + hidden, kTile, size,
                  kTile - hidden, keys);
    product<true>(dv + begin * padded, padded, p.data + hidden, kTile, 1, dout_rows.data + hidden * padded, padded,
                  keys, padded, queries - hidden);
    product<true>(dk + begin * padded, padded, ds.data + hidden, kTile, 1, q_rows.data + hidden * padded, padded, keys,
                  padded, queries - hidden);
  }
  float factors[kTile];
  for (float& factor : factors) factor = scale;
  turn_out(dq.data + first * dq.stride, dq.stride, dq_turned.data, factors, queries, size);
}

}  // namespace

void attention_forward(float* out, float* stats, Heads<const float> q, Heads<const float> k, Heads<const float> v,
                       const AttentionShape& shape) {
  const auto& [batch, length, heads, kv_heads, size] = shape;
  const Heads<float> outs = {out, {length * heads * size, heads * size, size}};
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t kv = h / (heads / kv_heads);
      for (std::int64_t first = 0; first < length; first += kTile) {
        forward_tile(rows_of(outs, b, h), stats + (b * heads + h) * length, rows_of(q, b, h), rows_of(k, b, kv),
                     rows_of(v, b, kv), first, length, size);
      }
    }
  }
}

void attention_backward(Heads<float> dq, Heads<float> dk, Heads<float> dv, const float* dout, Heads<const float> q,
                        Heads<const float> k, Heads<const float> v, const float* out, const float* stats,
                        float* scratch, const AttentionShape& shape) {
  const auto& [batch, length, heads, kv_heads, size] = shape;
  const HeadStrides packed = {length * heads * size, heads * size, size};
  const Heads<const float> douts = {dout, packed}, outs = {out, packed};
  const std::int64_t padded = whole_vectors(size), group = heads / kv_heads;
  float* const dk_sums = scratch;  // [length][padded] each, of one key head
  float* const dv_sums = scratch + length * padded;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t kv = 0; kv < kv_heads; ++kv) {
      for (std::int64_t i = 0; i < 2 * length * padded; i += kLanes) store(scratch + i, Lanes{});
      for (std::int64_t h = kv * group; h < (kv + 1) * group; ++h) {
        for (std::int64_t first = 0; first < length; first += kTile) {
          backward_tile(rows_of(dq, b, h), dk_sums, dv_sums, rows_of(douts, b, h), rows_of(q, b, h), rows_of(k, b, kv),
                        rows_of(v, b, kv), rows_of(outs, b, h), stats + (b * heads + h) * length, first, length, size);
        }
      }
      const Rows<float> dk_rows = rows_of(dk, b, kv), dv_rows = rows_of(dv, b, kv);
      for (std::int64_t j = 0; j < length; ++j) {
        for_lanes(size, [&](std::int64_t d, auto part) {
          store(dk_rows.data + j * dk_rows.stride + d, load(dk_sums + j * padded + d), part);
          store(dv_rows.data + j * dv_rows.stride + d, load(dv_sums + j * padded + d), part);
        });
      }
    }
  }
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
