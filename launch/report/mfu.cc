#include "launch/report/mfu.h"

#include <fmt/format.h>

namespace strake::launch {

double mfu(double tokens_per_s, double flops_per_token, double peak_flops, int ranks) {
  return peak_flops > 0 ? tokens_per_s * flops_per_token / (peak_flops * ranks) : 0;
}

std::string mfu_convention() {
  return "6 FLOPs a matmul weight and token, the head counted once and padded, and 6 T C L for causal attention";
}

std::string peak_name(DeviceKind device, double peak_flops) {
  if (peak_flops <= 0) return "a rate that is not known";
  if (device == DeviceKind::kCuda) {
    return fmt::format("the vendor's dense bf16 rate, {:.1f} TFLOP/s a GPU", peak_flops / 1e12);
  }
  return fmt::format("the measured f32 matmul rate, {:.1f} GFLOP/s a rank", peak_flops / 1e9);
}

}  // namespace strake::launch
