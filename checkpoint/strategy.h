// Strategy: how a rank's part of the state leaves its device for a checkpoint, what of training waits for that, and who
// writes it. docs/checkpoints.md says which to take when.
//
//   sync     the training thread copies, waits, and writes: nothing is trained until the checkpoint is durable
//   pinned   copied into page-locked host memory; the next step begins behind the copy
//   lazy     the same copy beside the next step's forward and backward; the update of the weights waits for it
//   device   copied on the device, which the next update waits for, and from there to the host beside later steps
//
// All but sync write from a thread of their own (WriterThread). Each copy is behind the event that the state is final.
// Threads: the training thread; arrive(): the one that writes. Errors: the device's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/device.h"

namespace strake::checkpoint {

enum class StrategyKind : std::uint8_t { kSync, kPinned, kLazy, kDevice };
std::string_view name_of(StrategyKind kind);

// What a strategy keeps from running while the state is being saved.
enum class Holds : std::uint8_t {
  kTraining,    // all of it, until the checkpoint is durable
  kNextStep,    // until the state has been copied
  kNextUpdate,  // likewise, but only what overwrites the state
};

// One range of the state that this rank writes.
struct SavedRange {
  std::string label;
  Tensor state;
  Tensor on_device;  // a copy on the device; undefined but for kDevice
  Tensor on_host;    // what is written
};

class Strategy {
 public:
  virtual ~Strategy() = default;

  virtual Holds holds() const = 0;
  // Who writes: the training thread itself, or one beside it?
  bool writes_beside() const { return holds() != Holds::kTraining; }

  // Enqueues that the state leaves, behind `state_final`. REQUIRES: nobody uses the ranges' copies any more.
  virtual void leave(const Event& state_final) = 0;
  // Behind it the state of the last leave() may be overwritten.
  virtual const Event& left() const = 0;
  // Returns when host memory holds the state of the last leave().
  virtual void arrive() = 0;
};

// `ranges` and what they are in outlive the strategy.
std::unique_ptr<Strategy> make_strategy(StrategyKind kind, Device& device, Stream& copy_out,
                                        const std::vector<SavedRange>& ranges);

}  // namespace strake::checkpoint
