// Cross-entropy of rows that are too wide for registers and come from DRAM: while a row is worked on in shared memory,
// the next is on its way there and the one before on its way back, by bulk copies that one warp starts. The threads
// that compute never wait for DRAM unless it is what limits. A row that does not fit twice into a multiprocessor's
// shared memory is cut among the blocks of a cluster. Needs compute capability 9.0.
//
//   copying warp:      load r0 | load r1 | wait for r0's end, store r0, until it has left | load r2 | ...
//   computing warps:   wait for r0 | largest, sum | gradient in place | r0's end | wait for r1 | ...
#pragma once

#include <cuda/ptx>

#include "kernels/cuda/device_code.cuh"

namespace strake::kernels::cuda {

namespace ptx = ::cuda::ptx;

constexpr int kPipelineStages = 2;
constexpr int kComputingThreads = 512, kPipelineThreads = kComputingThreads + kWarp;
constexpr int kMostCluster = 8;  // that every device grants

// What a block needs beside its rows.
struct PipelineState {
  std::uint64_t full[kPipelineStages];      // the row has arrived
  std::uint64_t finished[kPipelineStages];  // the computing warps are done with it
  std::uint64_t heard[2];                   // what every block of the cluster has found, of even and odd rows
  float found[2][kMostCluster][2];          // its largest logit, and the sum of exponentials relative to that
  float cells[kWarp];
};
constexpr int kPipelineStateBytes = 512;  // before the rows, which are aligned to 128
static_assert(sizeof(PipelineState) <= kPipelineStateBytes);

__device__ inline void wait_phase(std::uint64_t* barrier, std::uint32_t parity) {
  while (!ptx::mbarrier_try_wait_parity(ptx::sem_acquire, ptx::scope_cluster, barrier, parity)) {
  }
}

// Where that lies in a block of this cluster.
template <typename Value>
__device__ inline Value* peer(Value* mine, unsigned block) {
  std::uint64_t there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(mine), "r"(block));
  return reinterpret_cast<Value*>(there);
}

// Among the computing warps only.
__device__ inline void meet() { asm volatile("bar.sync 1, %0;" ::"n"(kComputingThreads) : "memory"); }
template <typename Warp>
__device__ inline float combine(float value, float* cells, float neutral, Warp warp_combine) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  value = warp_combine(value);
  if (lane == 0) cells[warp] = value;
  meet();
  value = warp_combine(lane < kComputingThreads / kWarp ? cells[lane] : neutral);
  meet();
  return value;
}

// The largest of a vector's values and `largest`.
__device__ inline float largest_of(const Vector<float>& vector, float largest) {
#pragma unroll
  for (float value : vector.values) largest = fmaxf(largest, value);
  return largest;
}
__device__ inline __nv_bfloat162 largest_of(const Vector<__nv_bfloat16>& vector, __nv_bfloat162 largest) {
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(vector.values);
#pragma unroll
  for (int i = 0; i < Vector<__nv_bfloat16>::kElems / 2; ++i) largest = __hmax2_nan(largest, pairs[i]);
  return largest;
}
template <typename T>
struct Largest {
  float value = -INFINITY;
  __device__ float get() const { return value; }
};
template <>
struct Largest<__nv_bfloat16> {
  __nv_bfloat162 value = __float2bfloat162_rn(-INFINITY);
  __device__ float get() const { return fmaxf(__low2float(value), __high2float(value)); }
};

__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

constexpr float kLog2E = 1.4426950408889634f;

// exp(x - largest): one multiply-add and one exponential of bf16, which is coarser than what that loses.
template <typename T>
struct Exponential {
  float largest, offset;

  // Where nothing is larger than minus infinity, every exponential is zero.
  __device__ explicit Exponential(float of) : largest(of == -INFINITY ? 0 : of), offset(-largest * kLog2E) {}
  __device__ float operator()(T x) const {
    if constexpr (sizeof(T) == sizeof(float)) return fast_exp2((x - largest) * kLog2E);
    return fast_exp2(fmaf(to_float(x), kLog2E, offset));
  }
};

// As row_kernel. Block b of a cluster has the columns from b * share_elems, at most share_elems, whole vectors;
// clusters take rows in turn.
template <typename T, int Cluster>
__global__ void __launch_bounds__(kPipelineThreads, 1)
    pipelined_row_kernel(T* logits, float* losses, const std::int32_t* targets, std::int64_t rows, int vocab,
                         int padded_vocab, int share_elems, float scale, bool gradient) {
#if __CUDA_ARCH__ >= 900
  using V = Vector<T>;
  extern __shared__ __align__(128) std::byte shared[];
  PipelineState& state = *reinterpret_cast<PipelineState*>(shared);
  const int share = Cluster == 1 ? 0 : static_cast<int>(ptx::get_sreg_cluster_ctarank());
  const std::int64_t first_row = blockIdx.x / Cluster, stride = gridDim.x / Cluster;
  const int begin = share * share_elems, elems = min(padded_vocab - begin, share_elems);
  const std::uint32_t share_bytes = elems * sizeof(T);
  const auto buffer = [&](int stage) {
    return reinterpret_cast<T*>(shared + kPipelineStateBytes) + stage * static_cast<std::int64_t>(share_elems);
  };
  const auto cluster_meets = [] {
    if constexpr (Cluster == 1) return __syncthreads();
    ptx::barrier_cluster_arrive();
    ptx::barrier_cluster_wait();
  };

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kPipelineStages; ++stage) {
      ptx::mbarrier_init(&state.full[stage], 1);
      ptx::mbarrier_init(&state.finished[stage], kComputingThreads / kWarp);
    }
    for (std::uint64_t& heard : state.heard) ptx::mbarrier_init(&heard, 1);
    ptx::fence_mbarrier_init(ptx::sem_release, ptx::scope_cluster);
  }
  cluster_meets();

  if (threadIdx.x == kComputingThreads) {
    const auto load = [&](std::int64_t row, int stage) {
      if (row >= rows) return;
      ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta, ptx::space_shared, &state.full[stage],
                                     share_bytes);
      ptx::cp_async_bulk(ptx::space_cluster, ptx::space_global, buffer(stage), logits + row * padded_vocab + begin,
                         share_bytes, &state.full[stage]);
    };
    for (int stage = 0; stage < kPipelineStages; ++stage) load(first_row + stage * stride, stage);
    int stage = 0;
    std::uint32_t parity = 0;
    for (std::int64_t row = first_row; row < rows; row += stride) {
      wait_phase(&state.finished[stage], parity);
      if (gradient) {
        ptx::cp_async_bulk(ptx::space_global, ptx::space_shared, logits + row * padded_vocab + begin, buffer(stage),
                           share_bytes);
        ptx::cp_async_bulk_commit_group();
        ptx::cp_async_bulk_wait_group_read(ptx::n32_t<0>());
      }
      load(row + kPipelineStages * stride, stage);
      if (++stage == kPipelineStages) stage = 0, parity ^= 1;
    }
    ptx::cp_async_bulk_wait_group(ptx::n32_t<0>());
  } else if (threadIdx.x < kComputingThreads) {
    const int vectors = elems / V::kElems;
    int stage = 0;
    std::uint32_t parity = 0, turn = 0;  // turn: of this block's rows
    for (std::int64_t row = first_row; row < rows; row += stride, ++turn) {
      const int target = targets[row] - begin;
      const bool has_target = target >= 0 && target < elems;
      T* const values = buffer(stage);
      wait_phase(&state.full[stage], parity);
      // What is beyond the vocabulary counts for nothing, and its gradient is zero.
      if (begin + elems > vocab) {
        for (int i = max(vocab - begin, 0) + static_cast<int>(threadIdx.x); i < elems; i += kComputingThreads)
          values[i] = from_float<T>(-INFINITY);
        meet();
      }
      Largest<T> own;
#pragma unroll 4
      for (int v = threadIdx.x; v < vectors; v += kComputingThreads)
        own.value = largest_of(V::load(values + v * V::kElems), own.value);
      float largest = combine(own.get(), state.cells, -INFINITY, [](float v) { return warp_max(v); });
      const Exponential<T> beneath(largest);
      float even = 0, odd = 0;
#pragma unroll 4
      for (int v = threadIdx.x; v < vectors; v += kComputingThreads) {
        const V in = V::load(values + v * V::kElems);
#pragma unroll
        for (int i = 0; i < V::kElems; i += 2) {
          even += beneath(in.values[i]);
          odd += beneath(in.values[i + 1]);
        }
      }
      float sum = combine(even + odd, state.cells, 0.0f, [](float v) { return warp_sum(v); });
      if constexpr (Cluster > 1) {
        const std::uint32_t side = turn % 2;
        auto& found = state.found[side];
        if (threadIdx.x == 0) {
          ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta, ptx::space_shared, &state.heard[side],
                                         Cluster * sizeof found[0]);
        }
        if (threadIdx.x < Cluster) {
          const float mine[2] = {largest, sum};
          ptx::st_async(peer(&found[share][0], threadIdx.x), mine, peer(&state.heard[side], threadIdx.x));
        }
        wait_phase(&state.heard[side], turn / 2 % 2);
        largest = -INFINITY;
#pragma unroll
        for (int other = 0; other < Cluster; ++other) largest = fmaxf(largest, found[other][0]);
        sum = 0;
#pragma unroll
        for (int other = 0; other < Cluster; ++other)
          sum += found[other][1] * fast_exp2((found[other][0] - largest) * kLog2E);
      }
      const float target_logit = has_target && threadIdx.x == 0 ? to_float(values[target]) : 0.0f;
      if (has_target && threadIdx.x == 0) losses[row] = logf(sum) + largest - target_logit;
      if (gradient) {
        if (has_target) meet();  // it was read
        const Exponential<T> probability(largest);
        const float inverse = scale / sum;
#pragma unroll 4
        for (int v = threadIdx.x; v < vectors; v += kComputingThreads) {
          const V in = V::load(values + v * V::kElems);
          V out;
#pragma unroll
          for (int i = 0; i < V::kElems; ++i) out.values[i] = from_float<T>(probability(in.values[i]) * inverse);
          out.store(values + v * V::kElems);
        }
        if (has_target) {
          meet();
          if (threadIdx.x == 0) {
            const T logit = from_float<T>(target_logit);
            values[target] = from_float<T>((probability(logit) / sum - 1) * scale);
          }
        }
        ptx::fence_proxy_async(ptx::space_shared);  // the copy back sees what was written
      }
      __syncwarp();
      if (threadIdx.x % kWarp == 0) ptx::mbarrier_arrive(&state.finished[stage]);
      if (++stage == kPipelineStages) stage = 0, parity ^= 1;
    }
  }
  cluster_meets();  // none ends while others may still tell it something
#endif
}

}  // namespace strake::kernels::cuda
