#include "checkpoint/image_proof.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "kernels/fingerprint.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/device/host_memory.h"

namespace strake::checkpoint {
namespace {

Tensor reserve_numbers(Arena& scalars, std::size_t ranges) {
  return Tensor::reserve(scalars, DType::kI64, {static_cast<std::int64_t>(ranges)});
}

ScalarMailbox reserve_told(Arena& host, std::size_t ranges) { return {host, DType::kI64, ranges, 1}; }

}  // namespace

ImageProof::ImageProof(Device& device, Arena& scalars, Arena& host, const std::vector<SavedRange>& ranges)
    : device_(device),
      ranges_(ranges),
      fingerprints_(reserve_numbers(scalars, ranges.size())),
      told_(reserve_told(host, ranges.size())),
      looked_at_(device.make_event("state looked at")) {}

void ImageProof::reserve(Arena& scalars, Arena& host, std::size_t ranges) {
  reserve_numbers(scalars, ranges);
  reserve_told(host, ranges);
}

void ImageProof::look(Stream& updating) {
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    const Tensor number = fingerprints_.flat(static_cast<std::int64_t>(i), 1);
    kernels::fingerprint(updating, {"fingerprint of what is saved", Phase::kCheckpoint}, {number, ranges_[i].state});
    told_.post(updating, {"fingerprint of what is saved to host", Phase::kCheckpoint}, 0, i, number);
  }
  updating.record(looked_at_);
  ticket_ = device_.ticket(looked_at_);
  looking_ = true;
}

void ImageProof::require(std::int64_t step, bool alone) {
  STRAKE_CHECK(looking_, "nobody has looked at the state that is saved");
  looking_ = false;
  if (alone) {
    while (!device_.complete(looked_at_)) std::this_thread::sleep_for(std::chrono::microseconds(50));
  } else {
    device_.host_wait(ticket_);
  }
  device_.check();  // events complete on a failed device too
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    const auto on_device = static_cast<std::uint64_t>(told_.look_integer(0, i));
    const std::uint64_t on_host = kernels::fingerprint(host_bytes(ranges_[i].on_host));
    if (on_device == on_host) continue;
    throw Error(ExitCode::kFailure,
                fmt::format("checkpoint of step {}: \"{}\": host memory has other bytes (fingerprint {:016x}) than the "
                            "device had behind the update ({:016x}); nothing of it is written. The state was copied "
                            "too early or overwritten too soon: a wait is missing. Please report it; "
                            "checkpoint.strategy = sync holds training meanwhile",
                            step, ranges_[i].label, on_host, on_device));
  }
}

}  // namespace strake::checkpoint
