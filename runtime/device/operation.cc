#include "runtime/device/operation.h"

namespace strake {

std::string_view name_of(Phase phase) {
  switch (phase) {
    case Phase::kForward:
      return "forward";
    case Phase::kBackward:
      return "backward";
    case Phase::kOptimizer:
      return "optimizer";
    case Phase::kComm:
      return "comm";
    case Phase::kInput:
      return "input";
    case Phase::kCheckpoint:
      return "checkpoint";
    case Phase::kEval:
      return "eval";
    case Phase::kOther:
      return "other";
  }
  return "?";
}

std::string_view name_of(Hazard hazard) { return hazard == Hazard::kReadAfterWrite ? "RAW" : "WAR"; }

}  // namespace strake
