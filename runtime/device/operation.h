// What is said about every operation before it is enqueued: name, phase, what it reads and writes,
// what it costs. The order checker, the recording, the memory plan and the step breakdown all live
// off these declarations, so an access that is not declared is a bug.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string_view>

#include "runtime/device/tensor.h"

namespace strake {

enum class Phase : std::uint8_t { kForward, kBackward, kOptimizer, kComm, kInput, kCheckpoint, kEval, kOther };
std::string_view name_of(Phase phase);

// Name and phase of one operation, given by the caller of a kernel: {"h3.mlp.fc", Phase::kForward}.
struct Label {
  std::string_view name;
  Phase phase = Phase::kOther;
  bool recomputed = false;  // makes again what memory did not keep: no part of the model's FLOPs
};

struct Operation {
  Label label;
  std::string_view kind;  // which kernel: "matmul", "all_reduce", "copy"
  std::span<const Tensor> reads;
  std::span<const Tensor> writes;
  double flops = 0;  // multiply-add counts two
  double bytes = 0;  // moved through memory (or over the wire, for a collective); 0: sum of reads and writes
  std::size_t workspace_bytes = 0;  // of the stream's workspace that the body uses
};

// Handle that the body of an operation runs with. CPU: empty; the body runs later, on the stream's
// worker thread. CUDA: the cudaStream_t; the body runs at once on the enqueueing thread.
struct NativeStream {
  void* handle = nullptr;
  DeviceAddress workspace = {};  // scratch of this stream's operations, one after the other
};

// The work of one operation. It resolves tensor addresses inside, never before: a planning device
// throws bodies away, and memory does not exist yet when a step is planned.
using Body = std::function<void(NativeStream)>;

enum class Hazard : std::uint8_t { kReadAfterWrite, kWriteAfterRead };
std::string_view name_of(Hazard hazard);

// A place in the program that waits. Every site must be load-bearing (tests drop each in turn).
struct WaitSite {
  std::string_view name;  // "compute waits for the batch"
  Hazard hazard;
};

}  // namespace strake
