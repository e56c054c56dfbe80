// Replicas: ranks hold copies of one model, and nothing but equal arithmetic keeps them equal. Before a checkpoint they
// compare fingerprints, since each rank writes a part of what all should hold.
//
// Threads: one at a time, with a control of its own. Errors: DivergenceError, the same on every rank.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "comm/control.h"

namespace strake::launch {

// A part of the model, as this rank holds it.
struct ReplicaPart {
  std::string_view name;  // "weights"
  std::uint64_t fingerprint;
};

// Throws where a part differs between ranks behind `step`, naming the parts and the ranks that differ from rank 0.
// Collective; the same parts on every rank.
void require_equal_replicas(comm::Control& control, std::int64_t step, std::span<const ReplicaPart> parts);

}  // namespace strake::launch
