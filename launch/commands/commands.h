// The small commands of `strake`; each prints to standard output and returns the exit code. Training is in
// launch/train.h. Threads: the main thread. Errors: thrown, for main() to map.
#pragma once

#include "data/prepare.h"

namespace strake::launch {

int prepare_data(const data::PrepareOptions& options);
int show_info();
int show_keys();

}  // namespace strake::launch
