// NcclCommunicator: collectives between GPUs through NCCL, one process a GPU.
//
// The unique id travels through Control, so no rank opens a port of its own. Reduction order: NCCL fixes it for two
// ranks (one addition an element); for more ranks it depends on algorithm and size of the reduced range, so equal
// bits hold for equal bucket layouts and the algorithm pinned by NCCL_ALGO and NCCL_PROTO (docs/determinism.md).
//
// Ordering, threads: as Communicator. All NCCL work of a rank is enqueued by its training thread, in one
// order that is the same on all ranks: collectives of several communicators cannot deadlock.
// Errors: CommError with NCCL's text. A dead peer is not reported by NCCL; the launcher ends the job. A communicator
// that an exception destroys aborts instead of waiting for its peers.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "comm/control.h"

namespace strake::comm {

// The group of all ranks of `control`. Collective. REQUIRES: the calling thread's GPU is the device whose streams
// will carry the collectives (making the CUDA device selects it).
std::unique_ptr<Communicator> make_nccl_communicator(Control& control);

// "2.28.9", of the library that is loaded.
std::string nccl_version();

}  // namespace strake::comm
