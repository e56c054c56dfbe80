// Token and position embedding. The gradient of the token table is deterministic: places are sorted by token
// (stable, so places of one token stay in order) and summed in that order, in two levels.
#include <cub/device/device_radix_sort.cuh>

#include "kernels/cuda/body.h"
#include "kernels/cuda/device_code.cuh"
#include "kernels/embedding.h"

namespace strake::kernels {
namespace {

using namespace cuda;

constexpr int kThreads = 128;
constexpr int kRun = 32;  // sorted places that one block sums

// position_table may be null.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(T* x, const std::int32_t* tokens, const T* token_table, const T* position_table, std::int64_t elems,
                   int sequence, int channels) {
  using V = Vector<T>;
  const std::int64_t begin = (blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x) * V::kElems;
  if (begin >= elems) return;
  const std::int64_t place = begin / channels;
  const int column = static_cast<int>(begin % channels);
  const V token = V::load(token_table + static_cast<std::int64_t>(tokens[place]) * channels + column);
  if (position_table == nullptr) return token.store(x + begin);
  const V position = V::load(position_table + place % sequence * channels + column);
  V out;
#pragma unroll
  for (int i = 0; i < V::kElems; ++i)
    out.values[i] = from_float<T>(to_float(token.values[i]) + to_float(position.values[i]));
  out.store(x + begin);
}

__global__ void number_kernel(std::int32_t* places, std::int32_t elems) {
  const std::int32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < elems) places[i] = i;
}

template <typename Out>
__device__ void add_to(Out* out, float value) {
  *out = from_float<Out>(to_float(*out) + value);
}

// Block j sums places [j * kRun, (j + 1) * kRun) of the sorted order. A token whose places all lie in here goes
// straight to the table; one that reaches into a neighbour leaves its part in `parts`: [j][0] continues from before,
// [j][1] goes on behind.
template <typename T, typename Out>
__global__ void __launch_bounds__(kThreads)
    sum_runs_kernel(Out* table, float* parts, const T* dx, const std::int32_t* keys, const std::int32_t* places,
                    std::int32_t elems, int channels) {
  const std::int32_t begin = blockIdx.x * kRun;
  const std::int32_t end = min(begin + kRun, elems);
  for (int column = threadIdx.x; column < channels; column += kThreads) {
    std::int32_t at = begin;
    while (at < end) {
      const std::int32_t key = keys[at];
      const bool continues = at == begin && begin > 0 && keys[begin - 1] == key;
      float sum = 0;
      for (; at < end && keys[at] == key; ++at)
        sum += to_float(dx[static_cast<std::int64_t>(places[at]) * channels + column]);
      const bool goes_on = at == end && end < elems && keys[end] == key;
      if (continues) {  // even if it goes on too: then the whole block is one token, and [j][0] is all of it
        parts[blockIdx.x * 2 * static_cast<std::int64_t>(channels) + column] = sum;
      } else if (goes_on) {
        parts[(blockIdx.x * 2 + 1) * static_cast<std::int64_t>(channels) + column] = sum;
      } else {
        add_to(table + static_cast<std::int64_t>(key) * channels + column, sum);
      }
    }
  }
}

// Block j finishes the token that begins in run j and reaches beyond it.
template <typename Out>
__global__ void __launch_bounds__(kThreads)
    join_runs_kernel(Out* table, const float* parts, const std::int32_t* keys, std::int32_t elems, int channels) {
  const std::int32_t begin = blockIdx.x * kRun, end = begin + kRun;
  if (end >= elems) return;
  const std::int32_t key = keys[end - 1];
  if (keys[end] != key || (keys[begin] == key && begin > 0 && keys[begin - 1] == key)) return;
  for (int column = threadIdx.x; column < channels; column += kThreads) {
    float sum = parts[(blockIdx.x * 2 + 1) * static_cast<std::int64_t>(channels) + column];
    for (std::int32_t run = blockIdx.x + 1; run * kRun < elems && keys[run * kRun] == key; ++run) {
      sum += parts[run * 2 * static_cast<std::int64_t>(channels) + column];
    }
    add_to(table + static_cast<std::int64_t>(key) * channels + column, sum);
  }
}

template <typename T, typename Out>
__global__ void __launch_bounds__(kThreads)
    position_kernel(Out* table, const T* dx, bool accumulate, int batch, std::int64_t elems) {
  using V = Vector<T>;
  const std::int64_t begin = (blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x) * V::kElems;
  if (begin >= elems) return;
  float sums[V::kElems] = {};
  for (int b = 0; b < batch; ++b) {
    const V in = V::load_streaming(dx + b * elems + begin);
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) sums[i] += to_float(in.values[i]);
  }
#pragma unroll
  for (int i = 0; i < V::kElems; ++i) {
    if (accumulate) sums[i] += to_float(table[begin + i]);
    table[begin + i] = from_float<Out>(sums[i]);
  }
}

struct Workspace {
  std::int32_t *keys, *places, *sorted_places;
  float* parts;
  void* sort;
  std::size_t sort_bytes, total_bytes;

  Workspace(void* base, std::int64_t tokens, std::int64_t channels) {
    auto* at = static_cast<char*>(base);
    const auto take = [&at](std::size_t bytes) {
      char* here = at;
      at += (bytes + 255) / 256 * 256;
      return here;
    };
    const auto n = static_cast<std::size_t>(tokens);
    keys = reinterpret_cast<std::int32_t*>(take(n * 4));
    places = reinterpret_cast<std::int32_t*>(take(n * 4));
    sorted_places = reinterpret_cast<std::int32_t*>(take(n * 4));
    parts =
        reinterpret_cast<float*>(take((n + kRun - 1) / kRun * 2 * static_cast<std::size_t>(channels) * sizeof(float)));
    sort_bytes = 0;
    cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, keys, keys, places, places, static_cast<int>(tokens));
    sort = take(sort_bytes);
    total_bytes = static_cast<std::size_t>(at - static_cast<char*>(base));
  }
};

}  // namespace

Body EmbeddingForward::on_cuda(Device&, Operation&) const {
  check_vectors("embedding", x.dtype(), x.size(2));
  check_tokens("embedding", x.dtype(), x.size(0), tokens.elems());
  return body(x.dtype(), [*this]<typename T>(cudaStream_t stream, void*) {
    forward_kernel<<<blocks_for(x.elems(), kThreads * Vector<T>::kElems), kThreads, 0, stream>>>(
        at<T>(x), at<const std::int32_t>(tokens), at<const T>(token_table), at<const T>(position_table), x.elems(),
        static_cast<int>(x.size(1)), static_cast<int>(x.size(2)));
  });
}

Body EmbeddingBackward::on_cuda(Device&, Operation& operation) const {
  check_vectors("embedding", dx.dtype(), dx.size(2));
  check_tokens("embedding", dx.dtype(), dx.size(0), tokens.elems());
  if (dtoken_table.defined()) operation.workspace_bytes = Workspace(nullptr, tokens.elems(), dx.size(2)).total_bytes;
  return body(dx.dtype(), [*this]<typename T>(cudaStream_t stream, void* workspace) {
    const int channels = static_cast<int>(dx.size(2));
    const auto zero = [&](const Tensor& rows) {
      STRAKE_CUDA(cudaMemsetAsync(at(rows), 0, rows.extent_bytes(), stream));
    };
    if (dtoken_table.defined()) {
      const auto places = static_cast<std::int32_t>(tokens.elems());
      Workspace work(workspace, places, channels);
      if (accumulate_token == Accumulate::kOverwrite) zero(dtoken_table);
      int key_bits = 1;
      while ((std::int64_t{1} << key_bits) < dtoken_table.size(0)) ++key_bits;
      number_kernel<<<blocks_for(places, 256), 256, 0, stream>>>(work.places, places);
      STRAKE_CUDA(cub::DeviceRadixSort::SortPairs(work.sort, work.sort_bytes, at<const std::int32_t>(tokens), work.keys,
                                                  work.places, work.sorted_places, places, 0, key_bits, stream));
      with_type(dtoken_table.dtype(), [&]<typename Out>() {
        const int runs = blocks_for(places, kRun);
        sum_runs_kernel<<<runs, kThreads, 0, stream>>>(at<Out>(dtoken_table), work.parts, at<const T>(dx), work.keys,
                                                       work.sorted_places, places, channels);
        join_runs_kernel<<<runs, kThreads, 0, stream>>>(at<Out>(dtoken_table), work.parts, work.keys, places, channels);
      });
    }
    if (!dposition_table.defined()) return;
    const bool add_positions = accumulate_position == Accumulate::kAdd;
    const std::int64_t length = dx.size(1), unused_rows = dposition_table.size(0) - length;
    if (!add_positions && unused_rows > 0) zero(dposition_table.slice(0, length, unused_rows));
    with_type(dposition_table.dtype(), [&]<typename Out>() {
      const std::int64_t elems = length * channels;
      position_kernel<<<blocks_for(elems, kThreads * Vector<T>::kElems), kThreads, 0, stream>>>(
          at<Out>(dposition_table), at<const T>(dx), add_positions, static_cast<int>(dx.size(0)), elems);
    });
  });
}

}  // namespace strake::kernels
