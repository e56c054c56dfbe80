// RollCall: lets a thread beside the training thread ask every other rank where it is, and answer when asked. It works
// while a rank's training thread stands still; only a rank that is dead, stopped or cut off does not answer.
//
// Threads: one, any but the training thread's; made and destroyed while that thread does not use it.
// Errors: CommError.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace strake::comm {

class RollCall {
 public:
  static constexpr std::size_t kMaxTextBytes = 1000;  // longer ones are cut

  struct Handlers {
    std::function<std::string()> where;                              // this rank's answer
    std::function<void(int rank, std::string_view text)> told = {};  // what a rank has sent by tell()
    std::function<void(int rank)> asked = {};                        // a rank has begun an ask()
  };

  virtual ~RollCall() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Handles what has arrived from other ranks. Never waits.
  virtual void serve(const Handlers& handlers) = 0;
  // Sends `text` to a rank, without waiting for it.
  virtual void tell(int rank, std::string_view text) = 0;
  // Asks all others and returns their answers by rank; nullopt: none came within `limit`. Ends early when all have
  // answered. Serves meanwhile. Own place: handlers.where().
  virtual std::vector<std::optional<std::string>> ask(std::chrono::milliseconds limit, const Handlers& handlers) = 0;
};

}  // namespace strake::comm
