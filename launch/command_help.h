// How the command line explains itself: help texts, and what is said about arguments that do not parse.
// Threads: the main thread. Errors: none of its own.
#pragma once

#include "runtime/base/error.h"

namespace CLI {
class App;
class Option;
class ParseError;
}  // namespace CLI

namespace strake::launch {

// What the argument takes is the path of a file or folder, by the name that help gives it.
bool takes_path(const CLI::Option& option);

// Gives every command of the program the help of one form, with an example of its use.
void make_help(CLI::App& program);

// What is wrong with the arguments, which command they are of, the nearest valid word, and where to read on.
ConfigError parse_problem(const CLI::App& program, const CLI::ParseError& error);

}  // namespace strake::launch
