// What ranks must have in common, compared before the first tensor travels: ranks that were given different things
// would train different models and call the mixture a checkpoint.
// Threads: the training thread; collective. Errors: AgreedError, exit code 10.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "comm/control.h"
#include "launch/config.h"

namespace strake::launch {

// What and its value, in the order in which differences are reported.
using Facts = std::vector<std::pair<std::string, std::string>>;

// Throws on every rank if `mine` is not the same on all: a line for each fact that differs, with the values and the
// ranks that have them. `remedy` ends each line.
void require_same_on_all_ranks(comm::Control& control, const Facts& mine, const std::string& remedy);

inline constexpr const char* kSameProgram = "start one program with one command on all ranks";
inline constexpr const char* kSameConfig = "give every rank the same file and the same key=value arguments";
// Of what a command is told beside its keys: "--steps" and its value. Only what all ranks must know the same.
inline constexpr const char* kSameOptions = "give every rank the same options";

// The command and the build of this program.
Facts program_facts(const std::string& command);
// Every key with its value.
Facts config_facts(const Config& config);

}  // namespace strake::launch
