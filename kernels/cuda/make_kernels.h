// The kernels' state for a CUDA device, without CUDA's headers.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/device/device.h"

namespace strake::kernels::cuda {

// For the current GPU. `deterministic`: only algorithms that give the same bits again; choices are not timed then.
std::unique_ptr<KernelState> make_kernels(bool deterministic);

// Was this program compiled for the current GPU?
bool has_code_for_current_gpu();

// {"cublaslt", "13.1.0"}, {"cudnn", "9.19.0"}: of the libraries that are loaded.
std::vector<std::pair<std::string, std::string>> library_versions();

}  // namespace strake::kernels::cuda
