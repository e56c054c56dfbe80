// Agreement: steps of start-up that may fail on some ranks only, ended by all ranks together.
#pragma once

#include <functional>

#include "comm/control.h"
#include "launch/train/train.h"

namespace strake::launch {

// Runs `work` on every rank, then compares notes. If it failed anywhere, throws AgreedError on every rank with one
// report: each different message once, with the ranks it came from (no ranks when all say the same).
// `work` must not be collective itself.
void agree(comm::Control& control, const std::function<void()>& work);

// Runs collective `work` that fails on every rank or on none (checkpoint/agreement.h) and makes its error an
// AgreedError. A lost peer or device is the one thing that only some ranks may meet: that error stays what it is.
template <typename Work>
auto as_agreed(Work work) {
  try {
    return work();
  } catch (const Error& error) {
    if (error.exit_code() == ExitCode::kPeerOrDeviceLost) throw;
    throw AgreedError(error.exit_code(), error.what());
  }
}

}  // namespace strake::launch
