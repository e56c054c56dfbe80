// Scripts by which shells complete the command line of `strake`: commands, options, their words, files, and the keys of
// a configuration with their words. Made from the commands themselves, so that they cannot lag behind. Threads: the
// main thread. Errors: none.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace strake::launch {

std::string bash_completion(const CLI::App& program);
std::string zsh_completion(const CLI::App& program);

}  // namespace strake::launch
