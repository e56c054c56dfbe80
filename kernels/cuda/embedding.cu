// Token and position embedding. The gradient of the token table is deterministic: places are sorted by token
// (stable, so places of one token stay in order) and summed in that order, in two levels.
#include <cub/device/device_radix_sort.cuh>

#include "kernels/cuda/device_code.cuh"
#include "kernels/cuda/launches.h"

namespace strake::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRun = 32;  // sorted places that one block sums

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

template <typename T, typename Out>
void token_gradient(cudaStream_t stream, Out* table, const T* dx, const Workspace& work, std::int32_t elems,
                    int channels) {
  const int runs = blocks_for(elems, kRun);
  sum_runs_kernel<<<runs, kThreads, 0, stream>>>(table, work.parts, dx, work.keys, work.sorted_places, elems, channels);
  join_runs_kernel<<<runs, kThreads, 0, stream>>>(table, work.parts, work.keys, elems, channels);
}

template <typename T>
void token_gradient(cudaStream_t stream, Operand table, const void* dx, const Workspace& work, std::int32_t elems,
                    int channels) {
  if (table.type == Type::kBF16) {
    token_gradient(stream, static_cast<__nv_bfloat16*>(table.address), static_cast<const T*>(dx), work, elems,
                   channels);
  } else {
    token_gradient(stream, static_cast<float*>(table.address), static_cast<const T*>(dx), work, elems, channels);
  }
}

template <typename T>
void position_gradient(cudaStream_t stream, Operand table, const void* dx, bool accumulate, int batch,
                       std::int64_t elems) {
  const int blocks = blocks_for(elems, kThreads * Vector<T>::kElems);
  if (table.type == Type::kBF16) {
    position_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(table.address),
                                                     static_cast<const T*>(dx), accumulate, batch, elems);
  } else {
    position_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<float*>(table.address), static_cast<const T*>(dx),
                                                     accumulate, batch, elems);
  }
}

}  // namespace

void embedding_forward(cudaStream_t stream, Type type, void* x, const std::int32_t* tokens, const void* token_table,
                       const void* position_table, std::int64_t batch, std::int64_t sequence, std::int64_t channels) {
  const std::int64_t elems = batch * sequence * channels;
  if (type == Type::kBF16) {
    using T = __nv_bfloat16;
    forward_kernel<<<blocks_for(elems, kThreads * Vector<T>::kElems), kThreads, 0, stream>>>(
        static_cast<T*>(x), tokens, static_cast<const T*>(token_table), static_cast<const T*>(position_table), elems,
        static_cast<int>(sequence), static_cast<int>(channels));
  } else {
    forward_kernel<<<blocks_for(elems, kThreads * Vector<float>::kElems), kThreads, 0, stream>>>(
        static_cast<float*>(x), tokens, static_cast<const float*>(token_table),
        static_cast<const float*>(position_table), elems, static_cast<int>(sequence), static_cast<int>(channels));
  }
}

std::size_t embedding_backward_workspace_bytes(std::int64_t tokens, std::int64_t channels) {
  return Workspace(nullptr, tokens, channels).total_bytes;
}

cudaError_t embedding_backward(cudaStream_t stream, Type type, Operand dtoken_table, bool accumulate_token,
                               Operand dposition_table, bool accumulate_position, const void* dx,
                               const std::int32_t* tokens, std::int64_t batch, std::int64_t sequence,
                               std::int64_t channels, std::int64_t vocab, void* workspace) {
  const auto elems = static_cast<std::int32_t>(batch * sequence);
  Workspace work(workspace, elems, channels);
  if (!accumulate_token) {
    const std::size_t elem_bytes = dtoken_table.type == Type::kBF16 ? 2 : 4;
    cudaMemsetAsync(dtoken_table.address, 0, static_cast<std::size_t>(vocab * channels) * elem_bytes, stream);
  }
  int key_bits = 1;
  while ((std::int64_t{1} << key_bits) < vocab) ++key_bits;
  number_kernel<<<blocks_for(elems, 256), 256, 0, stream>>>(work.places, elems);
  const cudaError_t sorted = cub::DeviceRadixSort::SortPairs(work.sort, work.sort_bytes, tokens, work.keys, work.places,
                                                             work.sorted_places, elems, 0, key_bits, stream);
  if (sorted != cudaSuccess) return sorted;
  const std::int64_t position_elems = sequence * channels;
  if (type == Type::kBF16) {
    token_gradient<__nv_bfloat16>(stream, dtoken_table, dx, work, elems, static_cast<int>(channels));
    position_gradient<__nv_bfloat16>(stream, dposition_table, dx, accumulate_position, static_cast<int>(batch),
                                     position_elems);
  } else {
    token_gradient<float>(stream, dtoken_table, dx, work, elems, static_cast<int>(channels));
    position_gradient<float>(stream, dposition_table, dx, accumulate_position, static_cast<int>(batch), position_elems);
  }
  return cudaSuccess;
}

}  // namespace strake::kernels::cuda
