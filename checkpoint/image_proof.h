// ImageProof: what is written of a checkpoint is what the device held when the state was final (Options::paranoid).
//
// The device makes a fingerprint of each range that this rank writes, on the stream that updates the state: whichever
// wait between streams is missing, its order is that stream's own. The thread that writes makes those of the copies in
// host memory before it writes a byte of them. They differ if the state was overwritten while it was copied, was copied
// before it was final, or if anybody wrote into the copies.
// Threads: look(): the training thread; require(): the one that writes. Errors: those of the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "checkpoint/strategy.h"
#include "runtime/device/device.h"
#include "runtime/device/scalar_mailbox.h"

namespace strake::checkpoint {

class ImageProof {
 public:
  // Reserves a number a range in both: of the device, and of the host. `ranges` outlive this object.
  ImageProof(Device& device, Arena& scalars, Arena& host, const std::vector<SavedRange>& ranges);
  // The same memory, where a run is only planned.
  static void reserve(Arena& scalars, Arena& host, std::size_t ranges);

  // Enqueues the device's side on `updating`, behind the last update.
  void look(Stream& updating);
  // REQUIRES: the copies of what was last looked at have arrived. Throws an Error of ExitCode::kFailure that names the
  // first range that differs. `alone`: the caller is the training thread, and must not order streams by waiting.
  void require(std::int64_t step, bool alone);

 private:
  Device& device_;
  const std::vector<SavedRange>& ranges_;
  Tensor fingerprints_;
  ScalarMailbox told_;
  Event looked_at_;
  EventTicket ticket_;
  bool looking_ = false;
};

}  // namespace strake::checkpoint
