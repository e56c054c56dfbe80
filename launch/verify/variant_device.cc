#include "launch/verify/variant_device.h"

#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/pause_stream.h"
#include "runtime/base/random.h"
#include "runtime/device/forwarding.h"

namespace strake::launch {
namespace {

using std::chrono::microseconds;

constexpr microseconds kLongest{400};

struct Lateness {
  std::string stream = {};  // whose operations are late; empty: every stream's
  microseconds longest{0};
  std::uint32_t one_in = 1;  // as many operations
  bool host = false;         // before they are enqueued, else before they run
};

class LateDevice final : public ForwardingDevice {
 public:
  LateDevice(Device& inner, std::vector<Lateness> lateness, std::uint64_t seed)
      : ForwardingDevice(inner), lateness_(std::move(lateness)), seed_(seed) {}

  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override {
    return std::make_unique<LateStream>(*this, inner().make_stream(name, priority));
  }

 private:
  class LateStream final : public ForwardingStream {
   public:
    LateStream(LateDevice& device, std::unique_ptr<Stream> inner)
        : ForwardingStream(device, std::move(inner)), late_(device), random_(random_key(device.seed_, name())) {}

    void launch(const Operation& operation, Body body) override {
      microseconds on_host{0}, on_stream{0};
      for (const Lateness& lateness : late_.lateness_) {
        const auto words = random_.block(number_++);
        if (!lateness.stream.empty() && lateness.stream != name()) continue;
        if (words[0] % lateness.one_in != 0) continue;
        (lateness.host ? on_host : on_stream) +=
            microseconds(words[1] % (static_cast<std::uint32_t>(lateness.longest.count()) + 1));
      }
      if (on_host.count() > 0) std::this_thread::sleep_for(on_host);
      if (on_stream.count() > 0) {
        body = [kind = device().kind(), on_stream, body = std::move(body)](NativeStream native) {
          kernels::pause_stream(kind, native, on_stream);
          body(native);
        };
      }
      ForwardingStream::launch(operation, std::move(body));
    }

   private:
    LateDevice& late_;
    Philox random_;
    std::uint64_t number_ = 0;
  };

  std::vector<Lateness> lateness_;
  std::uint64_t seed_;
};

std::vector<Lateness> lateness_of(const Variant& variant, DeviceKind kind, int rank) {
  const bool later = rank % 2 == 1;
  std::vector<Lateness> out;
  if (variant.late_stream == "all") {
    // On a GPU a pause is a kernel, and enqueueing one more of them in eight changes little.
    if (kind == DeviceKind::kCuda) {
      out.push_back({.longest = kLongest / 2});
      out.push_back({.longest = kLongest / 8, .host = true});
    } else {
      out.push_back({.longest = kLongest, .one_in = 8});
    }
  } else if (!variant.late_stream.empty()) {
    out.push_back({.stream = variant.late_stream, .longest = later ? kLongest : kLongest / 8});
  }
  if (variant.late_host) out.push_back({.longest = later ? kLongest / 2 : kLongest / 8, .host = true});
  return out;
}

}  // namespace

VariantDevice::VariantDevice(Device& base, const Variant& variant, int rank, std::uint64_t seed)
    : checked_(base, CheckedDevice::Policy::kCollect), outer_(&checked_) {
  std::vector<Lateness> lateness = lateness_of(variant, base.kind(), rank);
  if (lateness.empty()) return;
  late_ = std::make_unique<LateDevice>(checked_, std::move(lateness), seed + static_cast<std::uint64_t>(rank));
  outer_ = late_.get();
}

}  // namespace strake::launch
