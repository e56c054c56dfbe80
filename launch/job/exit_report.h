// The one line a failed run ends with, "strake: error: rank 1: train.bin: truncated ...", and its exit code.
// Threads: any, but for end_job(): the training thread. Errors: none.
#pragma once

#include <exception>

#include "comm/control.h"
#include "launch/job/watch.h"

namespace strake::launch {

// Prints what went wrong to standard error and returns the exit code of README.md's table for it; an error
// that is none of ours gives 1. `rank` is left out when there is only one.
int report_error(const std::exception& error, int rank, int ranks);

// What only this one of several ranks has met: reports it and ends the job on all of them, since they may be waiting
// for this rank. Does not return where Control::abort does not; a rank that is alone returns and says nothing. `watch`:
// null: none.
void end_job(const std::exception& error, comm::Control& control, RankWatch* watch);

// For std::set_terminate: what no one caught (of another thread, or out of a destructor) is a mistake of the program.
// Prints it and ends the process with ExitCode::kFailure, where abort() would leave scripts a signal to explain.
[[noreturn]] void end_uncaught();

}  // namespace strake::launch
