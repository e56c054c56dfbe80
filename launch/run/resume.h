// What a resumed run does differently from the one that wrote its checkpoint, in lines for people.
// Threads: any; pure. Errors: none: what an older program wrote and this one does not know is left out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/config.h"

namespace strake::launch {

// `saved`: the config in the checkpoint, as config_to_json gives it; empty: not known (weights that were imported).
// A line for every key whose value has changed, and for what that does from step `step` (from 0) on: the learning rate
// before and after, and where the samples go on.
std::vector<std::string> changes_since(const std::string& saved, const Config& now, std::int64_t step,
                                       std::int64_t next_sample);

}  // namespace strake::launch
