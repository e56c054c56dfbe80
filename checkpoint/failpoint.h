// Failpoints: named places in the commit protocol (checkpoint/format.md, "Writing") where a test can kill the
// process or throw. Production passes none.
#pragma once

#include <string_view>

namespace strake::checkpoint {

class Failpoints {
 public:
  virtual ~Failpoints() = default;
  // Called on every rank that passes the place, by the thread that does so: see strategy.h.
  virtual void hit(std::string_view name) = 0;
};

inline void hit(Failpoints* failpoints, std::string_view name) {
  if (failpoints != nullptr) failpoints->hit(name);
}

}  // namespace strake::checkpoint
