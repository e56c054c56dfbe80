// Model FLOPs utilisation: what share of the devices' matmul rate the model's own FLOPs take. One convention for the
// program's summary, the metrics and the bench.
// Threads: pure functions.
#pragma once

#include <string>

#include "runtime/device/device.h"

namespace strake::launch {

// From 0 to 1; 0 if the rate is not known. `peak_flops`: of one rank's device.
double mfu(double tokens_per_s, double flops_per_token, double peak_flops, int ranks);

// What models' model_flops_per_token() counts: "6 FLOPs a matmul weight and token ...".
std::string mfu_convention();
// What it is a share of: "the vendor's dense bf16 rate, 989.4 TFLOP/s a GPU".
std::string peak_name(DeviceKind device, double peak_flops);

}  // namespace strake::launch
