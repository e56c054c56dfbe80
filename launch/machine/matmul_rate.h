// The rate of this device's own matrix product: the peak that MFU is a share of, where no datasheet helps.
#pragma once

#include "runtime/device/device.h"

namespace strake::launch {

// FLOP/s of the best of several f32 products of 512 x 512 x 512 after a warm-up. About 20 ms; before training.
double measure_matmul_rate(Device& device);

}  // namespace strake::launch
