// What is known by experience of memory on GPUs that no arena is for: how much the driver's context and the libraries
// keep, and what workspace the libraries' kernels ask for. Where the GPU is here it is measured, or asked for, instead;
// a plan for another one says "estimated".
//
// Every constant is in gpu_experience.cc, with what it was measured on. Threads: pure functions. Errors: none.
#pragma once

#include <cstddef>
#include <string_view>

#include "launch/train/trainer.h"

namespace strake::launch {

// "H100 80GB HBM3, driver ..., CUDA ..., cuDNN ..., NCCL ..."
std::string_view gpu_experience_is_from();

// The driver's context, the program's code, cuBLASLt and cuDNN; of several ranks NCCL's too.
std::size_t expected_context_bytes(int ranks);
// What NCCL adds for several ranks; 0 for one.
std::size_t expected_communicator_bytes(int ranks);
// Of the compute stream: the most that any operation of a step of `job` asks for.
std::size_t expected_workspace_bytes(const Job& job);

}  // namespace strake::launch
