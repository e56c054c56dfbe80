// State fingerprints: what a trainer holds behind its last step, a number a parameter, so that runs can be compared
// whose ranks keep different parts of it.
//
// Element i (from 0) of a tensor is a word of 64 bits, zero above its own; mixed as in kernels/fingerprint.h and added
// up modulo 2^64. So the fingerprints of parts of a tensor add up to that of the whole. Threads: the training thread.
// Errors: as the device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/train/trainer.h"
#include "runtime/device/device.h"

namespace strake::launch {

struct StateFingerprint {
  std::string name;   // "param/h.3.attn.qkv.weight", "adam_m/...", "adam_v/...", "read/...": as the model reads it
  bool whole = true;  // else of the part that this rank owns
  std::uint64_t value = 0;
};

// Behind what is enqueued on the trainer's compute stream. Blocks the host; takes a few MiB of it meanwhile.
std::vector<StateFingerprint> fingerprints_of(Trainer& trainer, Device& device);

}  // namespace strake::launch
