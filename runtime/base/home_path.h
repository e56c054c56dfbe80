// A path as people write it where no shell expands it: in TOML, behind `key=`, in quotes.
//
// Threads: any that does not change the environment. Errors: none; what cannot be expanded stays as it is.
#pragma once

#include <string>
#include <string_view>

namespace strake {

// "~" and "~/..." with the user's home folder: $HOME, or what the system's user table says where that is not set. All
// else is given back as it is: "~name", "a/~", and "./~" for a folder that has this name.
std::string expand_home(std::string_view path);

}  // namespace strake
