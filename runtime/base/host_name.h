// The name of this machine, as it names itself; "unknown" if it has none.
#pragma once

#include <string>

namespace strake {

std::string host_name();

}  // namespace strake
