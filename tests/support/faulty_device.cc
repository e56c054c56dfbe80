#include "tests/support/faulty_device.h"

#include <thread>
#include <utility>

#include "kernels/pause_stream.h"
#include "runtime/base/error.h"

namespace strake::test {

class FaultyStream final : public ForwardingStream {
 public:
  FaultyStream(FaultyDevice& device, std::unique_ptr<Stream> inner)
      : ForwardingStream(device, std::move(inner)), device_(device) {}

  void launch(const Operation& operation, Body body) override {
    ForwardingStream::launch(operation, device_.with_faults(name(), operation, std::move(body)));
  }
  void wait(const Event& event, WaitSite site) override {
    if (!device_.drops(site)) ForwardingStream::wait(event, site);
  }

 private:
  FaultyDevice& device_;
};

bool FaultTarget::hits(std::string_view on_stream, std::string_view name) {
  if (!stream.empty() && stream != on_stream) return false;
  if (name.find(operation) == std::string_view::npos) return false;
  const std::int64_t match = matches++;
  return match >= from_match && match < until_match;
}

std::unique_ptr<Stream> FaultyDevice::make_stream(std::string_view name, StreamPriority priority) {
  return std::make_unique<FaultyStream>(*this, inner().make_stream(name, priority));
}

DeviceAddress FaultyDevice::allocate(std::string_view name, std::size_t size_bytes, MemoryKind kind) {
  if (!faults_.memory_to_refuse.empty() && faults_.memory_to_refuse == name)
    throw OutOfMemoryError("injected: no memory for '" + std::string(name) + "'");
  return ForwardingDevice::allocate(name, size_bytes, kind);
}

Body FaultyDevice::with_faults(std::string_view stream, const Operation& operation, Body body) {
  std::chrono::nanoseconds on_host{0}, on_stream{0};
  for (Delay& delay : faults_.delays) {
    if (!delay.target.hits(stream, operation.label.name)) continue;
    auto& sum = delay.where == Delay::Where::kHost ? on_host : on_stream;
    sum += delay.fixed;
    if (delay.random.count() > 0) {
      sum += std::chrono::nanoseconds(std::uniform_int_distribution<std::int64_t>(0, delay.random.count())(random_));
    }
  }
  for (FaultTarget& failure : faults_.failures) {
    if (!failure.hits(stream, operation.label.name)) continue;
    body = [message = "injected failure of '" + std::string(operation.label.name) + "'"](NativeStream) {
      throw DeviceError(message);
    };
  }
  if (on_host.count() > 0) std::this_thread::sleep_for(on_host);
  if (on_stream.count() == 0) return body;
  return [kind = kind(), on_stream, body = std::move(body)](NativeStream native) {
    kernels::pause_stream(kind, native, on_stream);
    body(native);
  };
}

bool FaultyDevice::drops(WaitSite site) {
  const std::int64_t pass = waits_passed_[std::string(site.name)]++;
  if (faults_.wait_to_drop != site.name || pass < faults_.drop_from_pass) return false;
  ++waits_dropped_;
  return true;
}

}  // namespace strake::test
