// Control: small host data between ranks (loss, stop flag, votes), apart from tensor traffic.
//
// It has MPI communicators of its own and never touches a device stream, so control can neither delay
// nor deadlock with gradients. Threads: one, but for abort(): the training thread, or the one that a duplicate was made
// for.
// Errors: CommError; DisagreementError where ranks are found to be at different calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace strake::comm {

class Control {
 public:
  virtual ~Control() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Starts an all-gather of `values` (the same number on every rank, at most 30) and returns without waiting.
  // One at a time: REQUIRES the previous one was finished.
  virtual void post(std::span<const double> values) = 0;
  // Waits for the posted all-gather: values of rank 0, then of rank 1, ... Polls with a short sleep;
  // posted a step ago it is normally complete.
  virtual std::vector<double> finish() = 0;

  // Blocking, for start, checkpoint and shutdown.
  virtual void barrier() = 0;
  virtual std::vector<std::string> all_gather(std::string_view text) = 0;  // one per rank
  virtual std::string broadcast(std::string_view text, int root) = 0;

  // Another control of the same ranks, for one other thread of each: its calls never meet those of this one, and its
  // errors are its own. Collective, by this control's thread, which also destroys it. This control outlives it.
  virtual std::unique_ptr<Control> duplicate() = 0;

  // From any thread. Ends the job on every rank with this exit code, without waiting for anyone. Does not return under
  // MPI; with ranks as threads it marks the world as failed, so that every waiting rank throws CommError.
  virtual void abort(int exit_code) = 0;
};

}  // namespace strake::comm
