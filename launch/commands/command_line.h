// The command line of `strake`: which command with which arguments. `strake --help` documents it.
// Threads: the main thread. Errors: ConfigError for arguments that do not parse, naming the nearest valid one;
// else what the command throws.
#pragma once

namespace strake::launch {

// Runs the command and returns the exit code.
int run_command_line(int argc, char** argv);

}  // namespace strake::launch
