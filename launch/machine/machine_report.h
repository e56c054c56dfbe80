// What a result was measured on, for people (`strake info`) and for files (manifest, bench).
// Threads: any. Errors: none. What is not known is null or "unknown".
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/device/gpu_facts.h"

namespace strake::launch {

// "cuda: 2 GPUs, driver 580.159.04", then a line for each GPU and for each pair of them; or "cuda: not built in", or
// why there are none. No newline at the end.
std::string describe(const GpuMachine& machine);

// The objects of docs/formats.md. `hardware`: of this host.
nlohmann::ordered_json build_json();
nlohmann::ordered_json libraries_json();
nlohmann::ordered_json hardware_json(const GpuMachine& gpus);

// "2026-11-22T20:31:00Z"
std::string utc_now();

}  // namespace strake::launch
