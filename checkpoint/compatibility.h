// Is a sound checkpoint one that this program's state can be loaded from?
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "checkpoint/manifest.h"
#include "checkpoint/shard_plan.h"

namespace strake::checkpoint {

// What else the checkpoint may hold than what is wanted.
enum class ExtraTensors : std::uint8_t { kRefuse, kIgnore };

// Throws IncompatibleCheckpointError that names `path` and the differences in names, shapes, dtypes and model
// configuration. An empty `expected_model` is not compared.
void check_compatible(const Manifest& manifest, std::span<const HeldRange> wanted, const std::string& expected_model,
                      ExtraTensors extra, const std::string& path);

}  // namespace strake::checkpoint
