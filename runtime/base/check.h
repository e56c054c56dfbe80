// STRAKE_CHECK: for programmer errors, always on. Prints the expression, the message and the place to stderr and ends
// the process at once with ExitCode::kFailure. What a user, a file, a peer or a device can cause is an exception
// (error.h). To get a core file, break on strake::check_failed.
#pragma once

#include <source_location>
#include <string>
#include <string_view>

namespace strake {

[[noreturn]] void check_failed(std::string_view expression, std::string_view message,
                               std::source_location where = std::source_location::current());

}  // namespace strake

// STRAKE_CHECK(condition, message): message is any expression convertible to std::string_view or
// std::string; it is evaluated only on failure.
#define STRAKE_CHECK(condition, message)             \
  do {                                               \
    if (!(condition)) [[unlikely]]                   \
      ::strake::check_failed(#condition, (message)); \
  } while (false)
