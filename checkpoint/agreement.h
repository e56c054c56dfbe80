// agree(): every rank does its part of a step and all learn how it ended: either every rank goes on, or every rank
// throws the same kind of error. So no rank waits for one that gave up, and all take the same branch.
//
// Threads: the training thread; collective over the ranks of `control`.
// Errors: that of the lowest rank that failed, on every rank: itself there, elsewhere one of the same type whose
// message names that rank. What is not an Error passes through on its own rank only (the process is ending).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/control.h"

namespace strake::checkpoint {

// Runs `work` here and returns what it returned on each rank.
std::vector<std::string> agree(comm::Control& control, const std::function<std::string()>& work);

// The same for work that only rank 0 does: what it returned, on every rank.
std::string agree_on_root(comm::Control& control, const std::function<std::string()>& work);

}  // namespace strake::checkpoint
