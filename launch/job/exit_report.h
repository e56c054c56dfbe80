// The one line a failed run ends with, "strake: error: rank 1: train.bin: truncated ...", and its exit code.
// Threads: any. Errors: none.
#pragma once

#include <exception>

namespace strake::launch {

// Prints what went wrong to standard error and returns the exit code of README.md's table for it; an error
// that is none of ours gives 1. `rank` is left out when there is only one.
int report_error(const std::exception& error, int rank, int ranks);

// For std::set_terminate: what no one caught (of another thread, or out of a destructor) is a mistake of the program.
// Prints it and ends the process with ExitCode::kFailure, where abort() would leave scripts a signal to explain.
[[noreturn]] void end_uncaught();

}  // namespace strake::launch
