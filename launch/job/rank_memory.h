// The memory of the ranks of one host, compared with what is there before any of it is taken: the operating system
// grants more than it has, and later ends whichever process it likes.
//
// Threads: the training thread. Errors: AgreedError with the code of OutOfMemoryError, on every rank: what needs how
// much, what there is, and the keys that shrink it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "comm/control.h"
#include "launch/train/trainer.h"
#include "runtime/device/device.h"

namespace strake::launch {

// What this host can still give: memory that is free or can be freed, and swap, within the limit of this process's
// control group. 0: not known.
std::uint64_t available_host_bytes();

// Calls `take` on every rank if what the ranks of each host need of its memory is there, `mine_bytes` of it for this
// rank; else on none. `remedy` ends what is said then. Collective.
void take_host_memory(comm::Control& control, std::uint64_t mine_bytes, const std::function<void()>& take,
                      const std::string& remedy, std::uint64_t available_bytes = available_host_bytes());

// Takes the memory of every rank's trainer, or of none, and tells the communicator of it. Collective.
void take_memory(comm::Control& control, const Device& device, Trainer& trainer,
                 std::uint64_t available_bytes = available_host_bytes());

}  // namespace strake::launch
