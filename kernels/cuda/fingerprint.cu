// Fingerprint of bytes: the sum has no order, so blocks add to it as they end.
#include "kernels/cuda/body.h"
#include "kernels/cuda/device_code.cuh"
#include "kernels/fingerprint.h"

namespace strake::kernels {
namespace {

using namespace cuda;

using Word = unsigned long long;  // as atomicAdd has it
constexpr int kThreads = 256;
constexpr int kMostGridBlocks = 1056;  // eight a multiprocessor of the largest Hopper parts

__device__ Word mixed(Word word, std::int64_t index) {
  Word z = word + static_cast<Word>(index + 1) * kFingerprintStep;
  z = (z ^ (z >> 30)) * kFingerprintMix1;
  z = (z ^ (z >> 27)) * kFingerprintMix2;
  return z ^ (z >> 31);
}

// Words `at` and behind it, `at` a multiple of 16 bytes of data, which lies at one of 16, of 4, or anywhere.
template <int kAlignment>
__device__ ulonglong2 words_at(const unsigned char* data, std::int64_t at) {
  if constexpr (kAlignment == 16) {
    return __ldcs(reinterpret_cast<const ulonglong2*>(data + at));
  } else if constexpr (kAlignment == 4) {
    const auto* const parts = reinterpret_cast<const unsigned*>(data + at);
    const auto word = [&](int i) { return __ldcs(parts + i) | static_cast<Word>(__ldcs(parts + i + 1)) << 32; };
    return {word(0), word(2)};
  } else {
    const auto word = [&](int first) {
      Word value = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) value |= static_cast<Word>(data[at + first + i]) << (8 * i);
      return value;
    };
    return {word(0), word(8)};
  }
}

template <int kAlignment>
__global__ void __launch_bounds__(kThreads)
    fingerprint_kernel(Word* out, const unsigned char* data, std::int64_t size_bytes) {
  __shared__ Word cells[kWarp];
  const std::int64_t pairs = size_bytes / 16;
  Word sum = 0;
  const std::int64_t first = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x;
  for (std::int64_t i = first; i < pairs; i += static_cast<std::int64_t>(gridDim.x) * kThreads) {
    const ulonglong2 pair = words_at<kAlignment>(data, 16 * i);
    sum += mixed(pair.x, 2 * i) + mixed(pair.y, 2 * i + 1);
  }
  if (first == 0) {  // what is left: at most two words
    for (std::int64_t at = 16 * pairs; at < size_bytes; at += 8) {
      Word word = 0;
      for (std::int64_t k = 0; k < 8 && at + k < size_bytes; ++k) word |= static_cast<Word>(data[at + k]) << (8 * k);
      sum += mixed(word, at / 8);
    }
  }
  sum = block_combine(sum, cells, Word{0}, [](Word value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
  });
  if (threadIdx.x == 0) atomicAdd(out, sum);
}

}  // namespace

Body Fingerprint::on_cuda(Device&, Operation&) const {
  return untyped_body([*this](cudaStream_t stream, void*) {
    const auto size_bytes = static_cast<std::int64_t>(data.extent_bytes());
    const std::int64_t wanted = (size_bytes / 16 + kThreads - 1) / kThreads;
    const int blocks = static_cast<int>(wanted < 1 ? 1 : wanted < kMostGridBlocks ? wanted : kMostGridBlocks);
    STRAKE_CUDA(cudaMemsetAsync(at(out), 0, out.extent_bytes(), stream));
    const std::uint64_t place = data.offset_bytes();  // arenas begin at a multiple of more
    const auto kernel = place % 16 == 0  ? fingerprint_kernel<16>
                        : place % 4 == 0 ? fingerprint_kernel<4>
                                         : fingerprint_kernel<1>;
    kernel<<<blocks, kThreads, 0, stream>>>(at<Word>(out), at<const unsigned char>(data), size_bytes);
  });
}

}  // namespace strake::kernels
