#include "runtime/device/jitter_device.h"

#include <thread>

#include "runtime/base/random.h"

namespace strake {
namespace {

class JitterStream final : public ForwardingStream {
 public:
  JitterStream(Device& device, std::unique_ptr<Stream> inner, std::chrono::microseconds longest, std::uint64_t seed)
      : ForwardingStream(device, std::move(inner)), longest_(longest), random_(random_key(seed, name())) {}

  void launch(const Operation& operation, Body body) override {
    const auto words = random_.block(number_++);
    if (words[0] % 8 == 0) {
      const auto delay = std::chrono::microseconds(words[1] % static_cast<std::uint32_t>(longest_.count() + 1));
      body = [delay, body = std::move(body)](NativeStream native) {
        std::this_thread::sleep_for(delay);
        body(native);
      };
    }
    ForwardingStream::launch(operation, std::move(body));
  }

 private:
  std::chrono::microseconds longest_;
  Philox random_;
  std::uint64_t number_ = 0;
};

}  // namespace

std::unique_ptr<Stream> JitterDevice::make_stream(std::string_view name, StreamPriority priority) {
  return std::make_unique<JitterStream>(*this, inner().make_stream(name, priority), longest_, seed_);
}

}  // namespace strake
