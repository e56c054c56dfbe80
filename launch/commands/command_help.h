// How the command line explains itself: help texts, and what is said about arguments that do not parse.
// Threads: the main thread. Errors: ConfigError for words that are no command.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/error.h"

namespace CLI {
class App;
class Option;
class ParseError;
}  // namespace CLI

namespace strake::launch {

// The commands that stand directly below this one.
std::vector<const CLI::App*> commands_of(const CLI::App& app);

// What the argument takes is the path of a file or folder, by the name that help gives it.
bool takes_path(const CLI::Option& option);

// Gives every command of the program the help of one form, with an example of its use.
void make_help(CLI::App& program);

// Throws ConfigError unless the words name a command, as in `strake help ckpt list`: --help ends the parsing before a
// word that is wrong is met.
void require_commands(const CLI::App& program, const std::vector<std::string>& words);

// What is wrong with the arguments, which command they are of, the nearest valid word, and where to read on.
ConfigError parse_problem(const CLI::App& program, const CLI::ParseError& error);

}  // namespace strake::launch
