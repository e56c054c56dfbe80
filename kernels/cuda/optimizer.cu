// Gradient norm and AdamW over flat arenas, one launch each for all parameters.
#include <memory>

#include "kernels/cuda/body.h"
#include "kernels/cuda/device_code.cuh"
#include "kernels/cuda/optimizer_arguments.h"
#include "kernels/optimizer.h"
#include "runtime/device/param_spec.h"

namespace strake::kernels {
namespace {

using namespace cuda;

static_assert(ParamLayout::kAlignmentElems % kGroupElems == 0 && ParamLayout::kAlignmentElems % kNormBlockElems == 0);

constexpr int kThreads = 256;

// The last segment for which first(segment) <= at.
template <typename First>
__device__ int find_segment(const SegmentTable& segments, std::uint32_t at, First first) {
  int low = 0, high = segments.segments - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (first(segments.table[middle]) <= at) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// A warp takes so many blocks one after the other, and looks for the segment of the first alone.
constexpr std::uint32_t kBlocksAWarp = 8;

template <typename G>
__global__ void __launch_bounds__(kThreads)
    square_sums_kernel(double* block_sums, const G* gradients, const __grid_constant__ SegmentTable segments) {
  using V = Vector<G>;
  const std::uint32_t begin = (blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp) * kBlocksAWarp;
  const std::uint32_t end = min(begin + kBlocksAWarp, segments.blocks), lane = threadIdx.x % kWarp;
  if (begin >= end) return;
  const auto first_block = [](const Segment& segment) { return segment.first_block; };
  int at = find_segment(segments, segments.first_block + begin, first_block);
  for (std::uint32_t block = segments.first_block + begin; block < segments.first_block + end; ++block) {
    while (at + 1 < segments.segments && segments.table[at + 1].first_block <= block) ++at;
    const Segment& segment = segments.table[at];
    const std::int64_t within = (block - segment.first_block) * kNormBlockElems;
    const std::int64_t elems = min(kNormBlockElems, static_cast<std::int64_t>(segment.elems) - within);
    const G* from = gradients + static_cast<std::int64_t>(segment.first_group) * kGroupElems + within;
    double total = 0;
#pragma unroll
    for (std::int64_t part = 0; part < kNormBlockElems; part += kWarp * V::kElems) {
      const std::int64_t i = part + lane * V::kElems;
      float sum = 0;
      if (i + V::kElems <= elems) {
        const V in = V::load(from + i);
#pragma unroll
        for (int k = 0; k < V::kElems; ++k) sum += to_float(in.values[k]) * to_float(in.values[k]);
      } else {
        for (std::int64_t k = i; k < elems; ++k) sum += to_float(from[k]) * to_float(from[k]);
      }
      total += sum;
    }
    total = warp_sum(total);
    if (lane == 0) block_sums[block] = total;
  }
}

__global__ void __launch_bounds__(1024)
    norm_kernel(float* norm, float* clip, const double* block_sums, std::uint32_t blocks, double max_norm) {
  __shared__ double cells[kWarp];
  double sum = 0;
  for (std::uint32_t block = threadIdx.x; block < blocks; block += blockDim.x) sum += block_sums[block];
  sum = block_sum(sum, cells);
  if (threadIdx.x == 0) {
    const double value = sqrt(sum);
    *norm = static_cast<float>(value);
    // Not fmin alone: it takes the 1 where the other is not a number.
    const double factor = max_norm <= 0 ? 1.0 : fmin(1.0, max_norm / (value + 1e-6));
    *clip = isfinite(value) ? static_cast<float>(factor) : nanf("");
  }
}

// Four elements a thread: f32 vectors of 16 bytes, gradients of 8 or 16.
template <typename G>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(float* weights, float* first_moment, float* second_moment, const G* gradients,
                 __nv_bfloat16* compute_weights, const float* clip_in, const double* scalars,
                 const __grid_constant__ SegmentTable segments, AdamWConstants with) {
  const std::int64_t first = segments.first_group * kGroupElems;
  const std::int64_t begin = first + (blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x) * 4;
  const auto group = static_cast<std::uint32_t>(begin / kGroupElems);
  if (group >= segments.first_group + segments.groups) return;
  const Segment& segment =
      segments.table[find_segment(segments, group, [](const Segment& s) { return s.first_group; })];
  const float decay = segment.weight_decay != 0 ? with.weight_decay : 0.0f;
  const float clip = *clip_in;
  const auto learning_rate = static_cast<float>(scalars[0]);
  const auto correction1 = static_cast<float>(scalars[1]), correction2 = static_cast<float>(scalars[2]);

  float4 w = *reinterpret_cast<const float4*>(weights + begin);
  float4 m = *reinterpret_cast<const float4*>(first_moment + begin);
  float4 v = *reinterpret_cast<const float4*>(second_moment + begin);
  G g[4];
  if constexpr (sizeof(G) == 2) {
    *reinterpret_cast<uint2*>(g) = __ldcs(reinterpret_cast<const uint2*>(gradients + begin));
  } else {
    *reinterpret_cast<float4*>(g) = __ldcs(reinterpret_cast<const float4*>(gradients + begin));
  }
  float* ws = &w.x;
  float* ms = &m.x;
  float* vs = &v.x;
  __nv_bfloat16 rounded[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float gradient = to_float(g[i]) * clip;
    ms[i] = with.beta1 * ms[i] + with.one_minus_beta1 * gradient;
    vs[i] = with.beta2 * vs[i] + with.one_minus_beta2 * gradient * gradient;
    const float mean = ms[i] / correction1, variance = vs[i] / correction2;
    ws[i] -= learning_rate * (mean / (sqrtf(variance) + with.epsilon) + decay * ws[i]);
    rounded[i] = __float2bfloat16_rn(ws[i]);
  }
  *reinterpret_cast<float4*>(weights + begin) = w;
  *reinterpret_cast<float4*>(first_moment + begin) = m;
  *reinterpret_cast<float4*>(second_moment + begin) = v;
  if (compute_weights != nullptr)
    *reinterpret_cast<uint2*>(compute_weights + begin) = *reinterpret_cast<const uint2*>(rounded);
}

// Segments in the units of the kernels: groups of elements, as ParamLayout aligns them.
using Tables = std::shared_ptr<const std::vector<SegmentTable>>;  // shared: bodies are copyable
Tables tables_of(std::span<const FlatSegment> segments, const Tensor& flat) {
  return std::make_shared<const std::vector<SegmentTable>>(segment_tables(segments, flat.elems()));
}

}  // namespace

Body SquareSums::on_cuda(Device&, Operation&) const {
  return body(gradients.dtype(),
              [*this, tables = tables_of(segments, gradients)]<typename G>(cudaStream_t stream, void*) {
                for (const SegmentTable& table : *tables) {
                  if (table.blocks == 0) continue;
                  square_sums_kernel<<<blocks_for(table.blocks, static_cast<int>(kThreads / kWarp * kBlocksAWarp)),
                                       kThreads, 0, stream>>>(at<double>(block_sums), at<const G>(gradients), table);
                }
              });
}

Body GradientNorm::on_cuda(Device&, Operation&) const {
  return untyped_body([*this](cudaStream_t stream, void*) {
    norm_kernel<<<1, 1024, 0, stream>>>(at<float>(norm), at<float>(clip), at<const double>(block_sums),
                                        static_cast<std::uint32_t>(block_sums.elems()), max_norm);
  });
}

Body AdamW::on_cuda(Device&, Operation&) const {
  return body(gradients.dtype(), [*this, constants = AdamWConstants(options),
                                  tables = tables_of(segments, weights)]<typename G>(cudaStream_t stream, void*) {
    for (const SegmentTable& table : *tables) {
      adamw_kernel<<<blocks_for(table.groups * kGroupElems, kThreads * 4), kThreads, 0, stream>>>(
          at<float>(weights), at<float>(first_moment), at<float>(second_moment), at<const G>(gradients),
          at<__nv_bfloat16>(compute_weights), at<const float>(clip), at<const double>(scalars), table, constants);
    }
  });
}

}  // namespace strake::kernels
