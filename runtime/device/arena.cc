#include "runtime/device/arena.h"

#include "runtime/base/check.h"
#include "runtime/device/device.h"

namespace strake {

Arena::~Arena() {
  if (device_ != nullptr && base_.value != 0) device_->free(base_, kind_);
}

std::size_t Arena::reserve(std::size_t size_bytes) {
  STRAKE_CHECK(!allocated(), "arena '" + name_ + "' is allocated: memory is planned before step 1");
  const std::size_t offset_bytes = size_bytes_;
  size_bytes_ += (size_bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
  return offset_bytes;
}

void Arena::allocate(Device& device) {
  STRAKE_CHECK(!allocated(), "arena '" + name_ + "' is allocated already");
  device_ = &device;
  if (size_bytes_ > 0) base_ = device.allocate(name_, size_bytes_, kind_);
}

DeviceAddress Arena::base() const {
  STRAKE_CHECK(allocated(), "arena '" + name_ + "' has no memory yet");
  return base_;
}

}  // namespace strake
