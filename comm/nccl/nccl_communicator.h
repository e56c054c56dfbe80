// NcclCommunicator: collectives between GPUs through NCCL, one process a GPU.
//
// The unique id travels through Control, so no rank opens a port of its own. Reduction order: NCCL fixes it for two
// ranks (one addition an element); for more ranks it depends on algorithm and size of the reduced range, so equal
// bits hold for equal bucket layouts and the algorithm pinned by NCCL_ALGO and NCCL_PROTO (docs/determinism.md).
//
// Ordering, threads: as Communicator. All NCCL work of a rank is enqueued by its training thread, in one
// order that is the same on all ranks: collectives of several communicators cannot deadlock.
// The communicators are non-blocking: no call of NCCL waits for a peer. The first collective of a pair of ranks
// connects them, and enqueueing waits for that, but so that abort() ends it. (Each collective is launched by a thread
// of NCCL's; the environment's NCCL_COMM_BLOCKING=1 has the calling thread do it, and then abort() cannot end a call.)
//
// NVLink multicast (NVLS) is off: this file sets NCCL_NVLS_ENABLE=0 for its process before main() begins, whatever the
// environment says. It adds in the switch, in an order and with roundings of its own.
//
// Errors: CommError with NCCL's text. Over a network NCCL reports a dead peer, by check(); between GPUs of one host it
// does not: the launcher ends the job. A communicator that an exception destroys aborts instead of waiting for its
// peers. Between symmetric buffers nothing ends a collective whose peer never comes: abort() then makes the
// communicator unusable and no more, and who waits for the stream waits until the process ends.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/control.h"
#include "comm/nccl/nccl_options.h"
#include "runtime/device/cuda/cuda_device.h"

namespace strake::comm {

// The group of all ranks of `control`. Collective. REQUIRES: the calling thread's GPU is the device whose streams
// will carry the collectives (making the CUDA device selects it). Throws CommError if the ranks have not found each
// other after `limit`.
// REQUIRES: nccl_usable_version() has what `options` ask for.
std::unique_ptr<Communicator> make_nccl_communicator(Control& control, const NcclOptions& options = {},
                                                     std::chrono::seconds limit = std::chrono::seconds(300));

// Device memory that can be registered as any of NcclOptions::Buffers.
GpuMemorySource nccl_memory();

// "2.28.9", of the library that is loaded.
std::string nccl_version();
// 22809 for 2.28.9: of the library that is loaded, or of the headers that this program was built with if those are
// older.
int nccl_usable_version();

}  // namespace strake::comm
