// Agreement: steps of start-up that may fail on some ranks only, ended by all ranks together.
#pragma once

#include <functional>

#include "comm/control.h"
#include "launch/train.h"

namespace strake::launch {

// Runs `work` on every rank, then compares notes. If it failed anywhere, throws AgreedError on every rank with one
// report: each different message once, with the ranks it came from (no ranks when all say the same).
// `work` must not be collective itself.
void agree(comm::Control& control, const std::function<void()>& work);

}  // namespace strake::launch
