// GpuSampler: watches a GPU from a thread of its own while something is measured, and sums up what it saw.
// Threads: start() and stop() from one; the sensor is read by the sampler's thread. Errors: none.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/device/gpu_facts.h"

namespace strake::launch {

struct TimedSample {
  std::chrono::steady_clock::time_point time;
  GpuSample sample;
};

// What a GPU did over some time.
struct GpuLoad {
  std::int64_t samples = 0;
  double seconds = 0;
  // From the GPU's energy counter where it has one, else the mean of samples.
  std::optional<double> mean_power_w;
  std::optional<double> mean_sm_clock_mhz;
  std::optional<int> least_sm_clock_mhz, highest_temperature_c;
  std::optional<std::size_t> memory_used_bytes;       // most
  std::vector<std::pair<ClockLimit, double>> limits;  // and in what share of the samples

  // A limit that is_throttle() was met.
  bool throttled() const;
};
// REQUIRES: in order of time, not empty.
GpuLoad load_of(std::span<const TimedSample> samples);

class GpuSampler {
 public:
  explicit GpuSampler(std::unique_ptr<GpuSensor> sensor,
                      std::chrono::milliseconds period = std::chrono::milliseconds(100));
  ~GpuSampler();
  GpuSampler(const GpuSampler&) = delete;
  GpuSampler& operator=(const GpuSampler&) = delete;

  // Samples at once and every period from now on.
  void start();
  // Samples once more. REQUIRES: started.
  GpuLoad stop();

 private:
  void sample_until_stopped();

  std::unique_ptr<GpuSensor> sensor_;
  std::chrono::milliseconds period_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;             // guarded by mutex_
  std::vector<TimedSample> samples_;  // the sampler's thread's while it runs
  std::thread thread_;
};

}  // namespace strake::launch
