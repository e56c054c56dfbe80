#include "runtime/base/check.h"

#include <cstdio>
#include <cstdlib>

#include "runtime/base/error.h"

namespace strake {

void check_failed(std::string_view expression, std::string_view message, std::source_location where) {
  std::fprintf(stderr, "strake: internal error: check failed: %.*s: %.*s [%s:%u, %s]\n",
               static_cast<int>(expression.size()), expression.data(), static_cast<int>(message.size()), message.data(),
               where.file_name(), where.line(), where.function_name());
  std::fflush(stderr);
  // Not abort(): a signal would be one code more for scripts that requeue, and mpirun would speak of a crash of its
  // own. No destructors either: what they rely on may be what is wrong.
  std::_Exit(static_cast<int>(ExitCode::kFailure));
}

}  // namespace strake
