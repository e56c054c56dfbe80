// Variants of a run that must not change a bit of its results: overlap, bucket sizes, late streams.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "launch/config.h"
#include "runtime/device/jitter_device.h"
#include "runtime/device/order_checker.h"
#include "tests/integration/small_job.h"
#include "tests/support/faulty_device.h"

namespace strake::test {

struct Variant {
  std::string name;
  bool overlap;
  double bucket_mib;
  std::string late_stream = {};  // one operation in four of this stream waits; "all": of every stream
  bool late_host = false;        // the training thread too
};

inline constexpr double kOneBucketEach = 1e-6;  // MiB: a parameter each
inline constexpr double kSomeBuckets = 0.008;
inline constexpr double kOneBucket = 100;  // for all but the embeddings, which share no bucket with the rest

inline std::vector<Variant> variants() {
  return {
      {"serial, one bucket", false, kOneBucket},
      {"serial, a bucket a parameter", false, kOneBucketEach},
      {"overlapped, one bucket", true, kOneBucket},
      {"overlapped, some buckets", true, kSomeBuckets},
      {"overlapped, a bucket a parameter", true, kOneBucketEach},
      {"compute late", true, kSomeBuckets, "compute"},
      {"communication late", true, kSomeBuckets, "comm"},
      {"input late", true, kSomeBuckets, "copy-in"},
      {"host late", true, kSomeBuckets, "", true},
      {"all late", true, kOneBucketEach, "all"},
  };
}

inline launch::Config with(launch::Config config, const Variant& variant) {
  config.comm.overlap = variant.overlap;
  config.comm.bucket_mib = variant.bucket_mib;
  return config;
}

// A rank's devices: faults outermost, then the order checker, then the CPU.
class VariantDevice {
 public:
  VariantDevice(const Variant& variant, int rank, std::uint64_t seed)
      : checked_(*cpu_, CheckedDevice::Policy::kCollect), faulty_(checked_, seed + static_cast<std::uint64_t>(rank)) {
    const std::chrono::microseconds longest(400);
    device_ = &faulty_;
    if (variant.late_stream == "all") {
      device_ = &jittery_.emplace(checked_, longest, seed + static_cast<std::uint64_t>(rank));
    } else if (!variant.late_stream.empty()) {
      // Odd ranks are later than even ones.
      faulty_.faults().delays.push_back(
          {.target = {.stream = variant.late_stream}, .random = rank % 2 == 0 ? longest / 8 : longest});
    }
    if (variant.late_host) {
      faulty_.faults().delays.push_back(
          {.random = rank % 2 == 0 ? longest / 8 : longest / 2, .where = Delay::Where::kHost});
    }
  }

  Device& device() { return *device_; }
  const OrderChecker& checker() { return checked_.checker(); }

 private:
  std::unique_ptr<Device> cpu_ = make_cpu_device();
  CheckedDevice checked_;
  FaultyDevice faulty_;
  std::optional<JitterDevice> jittery_;
  Device* device_;
};

}  // namespace strake::test
