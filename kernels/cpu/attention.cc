#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/body.h"

namespace strake::kernels {
namespace reference {
namespace {

template <typename T>
T dot(const T* a, const T* b, std::int64_t elems) {
  T sum = 0;
  for (std::int64_t i = 0; i < elems; ++i) sum += a[i] * b[i];
  return sum;
}

// y += factor * x
template <typename T>
void add_scaled(T* y, T factor, const T* x, std::int64_t elems) {
  for (std::int64_t i = 0; i < elems; ++i) y[i] += factor * x[i];
}

template <typename T>
T* row(const Heads<T>& heads, std::int64_t batch, std::int64_t token, std::int64_t head) {
  return heads.data + batch * heads.stride.batch + token * heads.stride.token + head * heads.stride.head;
}

template <typename T>
void fill_zero(const Heads<T>& to, const AttentionShape& shape, std::int64_t heads) {
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t t = 0; t < shape.length; ++t) {
      for (std::int64_t h = 0; h < heads; ++h) std::fill_n(row(to, b, t, h), shape.head_size, T(0));
    }
  }
}

}  // namespace

template <typename T>
void attention_forward(T* out, T* stats, Heads<const T> q, Heads<const T> k, Heads<const T> v,
                       const AttentionShape& shape) {
  const auto [batch, length, heads, kv_heads, size] = shape;
  const T scale = T(1) / std::sqrt(T(size));
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t kv = h / (heads / kv_heads);
      for (std::int64_t i = 0; i < length; ++i) {
        const T* const q_row = row(q, b, i, h);
        T highest = -std::numeric_limits<T>::infinity();
        for (std::int64_t j = 0; j <= i; ++j) highest = std::max(highest, scale * dot(q_row, row(k, b, j, kv), size));
        T* const out_row = out + ((b * length + i) * heads + h) * size;
        std::fill_n(out_row, size, T(0));
        T sum = 0;
        for (std::int64_t j = 0; j <= i; ++j) {
          const T p = std::exp(scale * dot(q_row, row(k, b, j, kv), size) - highest);
          sum += p;
          add_scaled(out_row, p, row(v, b, j, kv), size);
        }
        for (std::int64_t d = 0; d < size; ++d) out_row[d] /= sum;
        stats[(b * heads + h) * length + i] = highest + std::log(sum);
      }
    }
  }
}

// The scratch is the vector version's.
template <typename T>
void attention_backward(Heads<T> dq, Heads<T> dk, Heads<T> dv, const T* dout, Heads<const T> q, Heads<const T> k,
                        Heads<const T> v, const T* out, const T* stats, T* /*scratch*/, const AttentionShape& shape) {
  const auto [batch, length, heads, kv_heads, size] = shape;
  const T scale = T(1) / std::sqrt(T(size));
  fill_zero(dq, shape, heads);
  fill_zero(dk, shape, kv_heads);
  fill_zero(dv, shape, kv_heads);
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t kv = h / (heads / kv_heads);
      for (std::int64_t i = 0; i < length; ++i) {
        const std::int64_t out_row = ((b * length + i) * heads + h) * size;
        const T row_sum = dot(dout + out_row, out + out_row, size);
        for (std::int64_t j = 0; j <= i; ++j) {
          const T p =
              std::exp(scale * dot(row(q, b, i, h), row(k, b, j, kv), size) - stats[(b * heads + h) * length + i]);
          const T ds = scale * p * (dot(dout + out_row, row(v, b, j, kv), size) - row_sum);
          add_scaled(row(dq, b, i, h), ds, row(k, b, j, kv), size);
          add_scaled(row(dk, b, j, kv), ds, row(q, b, i, h), size);
          add_scaled(row(dv, b, j, kv), p, dout + out_row, size);
        }
      }
    }
  }
}

}  // namespace reference

namespace cpu {

STRAKE_VECTOR_CODE(attention_forward);
STRAKE_VECTOR_CODE(attention_backward);

}  // namespace cpu

namespace {

template <typename T>
Heads<T> heads_of(const Tensor& view) {
  return {data<std::remove_const_t<T>>(view), head_strides(view)};
}
CpuCode code_for(const Tensor& q, CpuCode code) { return q.size(3) > kMostVectorHeadSize ? CpuCode{} : code; }

}  // namespace

Body AttentionForward::on_cpu(CpuCode code) const {
  return cpu::body(q.dtype(), [=, *this]<typename T>() {
    cpu::attention_forward.in<T>(code_for(q, code))(data<T>(out), data<T>(stats), heads_of<const T>(q),
                                                    heads_of<const T>(k), heads_of<const T>(v), attention_shape(q, k));
  });
}

Body AttentionBackward::on_cpu(CpuCode code) const {
  return cpu::body(q.dtype(), [=, *this]<typename T>() {
    cpu::attention_backward.in<T>(code_for(q, code))(
        heads_of<T>(dq), heads_of<T>(dk), heads_of<T>(dv), data<T>(dout), heads_of<const T>(q), heads_of<const T>(k),
        heads_of<const T>(v), data<T>(out), data<T>(stats), data<T>(scratch), attention_shape(q, k));
  });
}

}  // namespace strake::kernels
