#include "runtime/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace strake {

void check_failed(std::string_view expression, std::string_view message, std::source_location where) {
  std::fprintf(stderr, "strake: internal error: check failed: %.*s: %.*s [%s:%u, %s]\n",
               static_cast<int>(expression.size()), expression.data(), static_cast<int>(message.size()),
               message.data(), where.file_name(), where.line(), where.function_name());
  std::fflush(stderr);
  std::abort();
}

}  // namespace strake
