// FaultyDevice: a device with faults that a test chooses: waits left out, operations that start late or fail,
// memory that is not there.
//
// It wraps the outermost device, so that an order checker inside sees a dropped wait as missing:
// FaultyDevice(CheckedDevice(CPU)). (With a PlanDevice innermost the checker finds the race and it never
// happens: for tests that also run under ThreadSanitizer.) Without faults it only counts how often each wait site is
// passed, which is how a test learns the sites. Delays keep the stream busy before the operation (pause_stream). A
// sleep orders nothing under ThreadSanitizer. Failures are thrown when a body runs: on a GPU, by launch().
//
// Threads: the training thread, which may change `faults()` between any two calls.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/forwarding.h"

namespace strake::test {

// Which operations a fault is for. Counts them, so copying fresh faults over old ones starts again at 0.
struct FaultTarget {
  std::string stream = {};               // name of the stream; empty: every stream
  std::string operation = {};            // part of the operation's name; empty: every operation
  std::int64_t from_match = 0;           // the first matching operation with the fault, from 0
  std::int64_t until_match = INT64_MAX;  // one past the last
  std::int64_t matches = 0;              // so far

  // Counts `name` if it matches; true if the fault is for it.
  bool hits(std::string_view on_stream, std::string_view name);
};

struct Delay {
  enum class Where : std::uint8_t {
    kStream,  // before the operation runs, on its stream
    kHost,    // before it is enqueued, on the training thread
  };
  FaultTarget target = {};
  std::chrono::nanoseconds fixed{0};
  std::chrono::nanoseconds random{0};  // and up to this much more, drawn for each operation
  Where where = Where::kStream;
};

struct Faults {
  std::string wait_to_drop = {};           // site name; empty: none
  std::int64_t drop_from_pass = 0;         // the first pass of that site that is dropped, from 0 since construction
  std::vector<Delay> delays = {};          // all that match add up
  std::vector<FaultTarget> failures = {};  // the bodies of these throw DeviceError instead of running
  std::string memory_to_refuse = {};       // name of the arena that there is no memory for; empty: none
};

class FaultyDevice final : public ForwardingDevice {
 public:
  // `seed` of random delays. `inner` outlives this device.
  explicit FaultyDevice(Device& inner, std::uint64_t seed = 1) : ForwardingDevice(inner), random_(seed) {}

  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override;

  DeviceAddress allocate(std::string_view name, std::size_t size_bytes, MemoryKind kind) override;

  Faults& faults() { return faults_; }
  // How often each wait site was passed, dropped ones included.
  const std::map<std::string, std::int64_t>& waits_passed() const { return waits_passed_; }
  std::int64_t waits_dropped() const { return waits_dropped_; }

 private:
  friend class FaultyStream;
  Body with_faults(std::string_view stream, const Operation& operation, Body body);
  bool drops(WaitSite site);

  Faults faults_;
  std::mt19937_64 random_;
  std::map<std::string, std::int64_t> waits_passed_;
  std::int64_t waits_dropped_ = 0;
};

}  // namespace strake::test
