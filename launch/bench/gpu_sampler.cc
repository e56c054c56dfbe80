#include "launch/bench/gpu_sampler.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace strake::launch {

bool GpuLoad::throttled() const {
  return std::any_of(limits.begin(), limits.end(), [](const auto& limit) { return is_throttle(limit.first); });
}

GpuLoad load_of(std::span<const TimedSample> samples) {
  STRAKE_CHECK(!samples.empty(), "nothing was sampled");
  GpuLoad load;
  load.samples = static_cast<std::int64_t>(samples.size());
  load.seconds = std::chrono::duration<double>(samples.back().time - samples.front().time).count();

  // Of samples that hold the value.
  const auto mean = [&](auto GpuSample::*field) -> std::optional<double> {
    double sum = 0, number = 0;
    for (const TimedSample& timed : samples) {
      if (const auto& value = timed.sample.*field; value.has_value()) {
        sum += static_cast<double>(*value);
        ++number;
      }
    }
    return number > 0 ? std::optional(sum / number) : std::nullopt;
  };
  const auto best = [&]<typename Value>(std::optional<Value> GpuSample::*field, auto better) {
    std::optional<Value> out;
    for (const TimedSample& timed : samples) {
      const std::optional<Value>& value = timed.sample.*field;
      if (value.has_value() && (!out.has_value() || better(*value, *out))) out = value;
    }
    return out;
  };
  const std::optional<double> energy_before_j = samples.front().sample.energy_j,
                              energy_after_j = samples.back().sample.energy_j;
  if (energy_before_j.has_value() && energy_after_j.has_value() && *energy_after_j > *energy_before_j) {
    load.mean_power_w = (*energy_after_j - *energy_before_j) / load.seconds;
  } else {
    load.mean_power_w = mean(&GpuSample::power_w);
  }
  load.mean_sm_clock_mhz = mean(&GpuSample::sm_clock_mhz);
  load.least_sm_clock_mhz = best(&GpuSample::sm_clock_mhz, std::less<>());
  load.highest_temperature_c = best(&GpuSample::temperature_c, std::greater<>());
  load.memory_used_bytes = best(&GpuSample::memory_used_bytes, std::greater<>());
  std::uint32_t all_limits = 0;
  for (const TimedSample& timed : samples) all_limits |= timed.sample.limits;
  for (const ClockLimit limit : limits_in(all_limits)) {
    const auto met = std::count_if(samples.begin(), samples.end(), [limit](const TimedSample& timed) {
      return (timed.sample.limits & static_cast<std::uint32_t>(limit)) != 0;
    });
    load.limits.emplace_back(limit, static_cast<double>(met) / static_cast<double>(samples.size()));
  }
  return load;
}

GpuSampler::GpuSampler(std::unique_ptr<GpuSensor> sensor, std::chrono::milliseconds period)
    : sensor_(std::move(sensor)), period_(period) {
  STRAKE_CHECK(sensor_ != nullptr, "a sampler reads a sensor");
}

GpuSampler::~GpuSampler() {
  if (thread_.joinable()) stop();
}

void GpuSampler::start() {
  STRAKE_CHECK(!thread_.joinable(), "started twice");
  stopping_ = false;
  samples_.clear();
  thread_ = std::thread([this] { sample_until_stopped(); });
}

GpuLoad GpuSampler::stop() {
  STRAKE_CHECK(thread_.joinable(), "not started");
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_one();
  thread_.join();
  return load_of(samples_);
}

void GpuSampler::sample_until_stopped() {
  for (bool last = false;;) {
    const auto now = std::chrono::steady_clock::now();
    samples_.push_back({now, sensor_->read()});
    if (last) return;
    std::unique_lock lock(mutex_);
    last = stopped_.wait_until(lock, now + period_, [this] { return stopping_; });
  }
}

}  // namespace strake::launch
