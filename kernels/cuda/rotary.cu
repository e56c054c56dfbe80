// Rotary position embedding, a warp a token: it works out the token's sines and cosines once and holds them in
// registers while it walks over the heads.
#include <numbers>

#include "kernels/cuda/body.h"
#include "kernels/cuda/device_code.cuh"
#include "kernels/device_limits.h"
#include "kernels/rotary.h"

namespace strake::kernels {
namespace {

using namespace cuda;

constexpr int kWarps = 4;  // tokens at work in a block

constexpr int kMostPairs = 128;
static_assert(2 * kMostPairs == limits_of(DeviceKind::kCuda, DType::kF32).most_head_size);

// Travels as a kernel argument.
struct Turns {
  double per_position[kMostPairs];
};

// QkvLayout in what a GPU computes quickly with.
struct HeadPlaces {
  int heads, kv_heads, head_size, group;
  bool by_group;

  explicit HeadPlaces(const QkvLayout& layout)
      : heads(static_cast<int>(layout.heads)),
        kv_heads(static_cast<int>(layout.kv_heads)),
        head_size(static_cast<int>(layout.head_size)),
        group(static_cast<int>(layout.group())),
        by_group(layout.order == QkvLayout::Order::kByGroup) {}

  __device__ int begin(int head) const {
    if (!by_group) return head * head_size;
    if (head < heads) return (head / group * (group + 2) + head % group) * head_size;
    const int key = head - heads, value = key - kv_heads;
    return (value < 0 ? key * (group + 2) + group : value * (group + 2) + group + 1) * head_size;
  }
};

// `Elems` neighbours in memory, loaded and stored at once.
template <typename T, int Elems>
struct alignas(Elems * sizeof(T)) Piece {
  T values[Elems];
};

template <typename T, int Elems>
__global__ void __launch_bounds__(kWarps* kWarp)
    rotary_kernel(T* y, HeadPlaces to, const T* x, HeadPlaces from, std::int64_t tokens, int length, int row, int moved,
                  int turned, float direction, const __grid_constant__ Turns turns) {
  using P = Piece<T, Elems>;
  __shared__ float cosines[kWarps][kMostPairs], sines[kWarps][kMostPairs];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const std::int64_t token = blockIdx.x * static_cast<std::int64_t>(kWarps) + warp;
  if (token >= tokens) return;
  const int pairs = to.head_size / 2;
  const auto position = static_cast<double>(token % length);
  for (int pair = lane; pair < pairs; pair += kWarp) {
    // Whole turns are dropped in double: what is left is as exact for the last position as for the first.
    const double turn = position * turns.per_position[pair];
    float sine, cosine;
    sincospif(2.0f * static_cast<float>(turn - rint(turn)), &sine, &cosine);
    sines[warp][pair] = direction * sine;
    cosines[warp][pair] = cosine;
  }
  __syncwarp();

  // Lanes beside each other take neighbouring pieces of a head, then of the next head.
  const int pieces = pairs / Elems, lanes_a_head = min(pieces, kWarp), heads_at_once = kWarp / lanes_a_head;
  if (lane >= heads_at_once * lanes_a_head) return;
  const T* const x_row = x + token * row;
  T* const y_row = y + token * row;
  for (int piece = lane % lanes_a_head; piece < pieces; piece += lanes_a_head) {
    const int first = piece * Elems;
    float cosine[Elems], sine[Elems];
#pragma unroll
    for (int i = 0; i < Elems; ++i) {
      cosine[i] = cosines[warp][first + i];
      sine[i] = sines[warp][first + i];
    }
    for (int head = lane / lanes_a_head; head < moved; head += heads_at_once) {
      const T* const in = x_row + from.begin(head) + first;
      P low = *reinterpret_cast<const P*>(in), high = *reinterpret_cast<const P*>(in + pairs);
      if (head < turned) {
#pragma unroll
        for (int i = 0; i < Elems; ++i) {
          const float a = to_float(low.values[i]), b = to_float(high.values[i]);
          low.values[i] = from_float<T>(a * cosine[i] - b * sine[i]);
          high.values[i] = from_float<T>(b * cosine[i] + a * sine[i]);
        }
      }
      T* const out = y_row + to.begin(head) + first;
      *reinterpret_cast<P*>(out) = low;
      *reinterpret_cast<P*>(out + pairs) = high;
    }
  }
}

Body rotary(std::string_view name, const Tensor& to, const QkvLayout& to_layout, const Tensor& from,
            const QkvLayout& from_layout, const std::vector<double>& frequencies, float direction) {
  check_tokens(name, to.dtype(), to.size(0), to.size(0) * to.size(1));
  check_head_size(name, to.dtype(), to_layout.head_size);
  Turns turns{};
  for (std::size_t pair = 0; pair < frequencies.size(); ++pair)
    turns.per_position[pair] = frequencies[pair] / (2 * std::numbers::pi);
  return body(to.dtype(), [=, turn = !frequencies.empty()]<typename T>(cudaStream_t stream, void*) {
    const std::int64_t tokens = to.size(0) * to.size(1);
    const int keys_end = static_cast<int>(to_layout.heads + to_layout.kv_heads);
    const int moved = at(to) == at(from) ? keys_end : keys_end + static_cast<int>(to_layout.kv_heads);
    constexpr int kElems = Vector<T>::kElems;
    // Half a head begins where a vector may begin, or is taken element by element.
    const auto kernel = to_layout.head_size / 2 % kElems == 0 ? rotary_kernel<T, kElems> : rotary_kernel<T, 1>;
    kernel<<<blocks_for(tokens, kWarps), kWarps * kWarp, 0, stream>>>(
        at<T>(to), HeadPlaces(to_layout), at<const T>(from), HeadPlaces(from_layout), tokens,
        static_cast<int>(to.size(1)), static_cast<int>(to.size(2)), moved, turn ? keys_end : 0, direction, turns);
  });
}

}  // namespace

Body RotaryForward::on_cuda(Device&, Operation&) const {
  return rotary("rotary_forward", y, y_layout, x, x_layout, frequencies, 1);
}
Body RotaryBackward::on_cuda(Device&, Operation&) const {
  return rotary("rotary_backward", dx, x_layout, dy, y_layout, frequencies, -1);
}

}  // namespace strake::kernels
