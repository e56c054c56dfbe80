#include "models/initialize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "models/transformer.h"
#include "runtime/base/random.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/forwarding.h"
#include "tests/support/gate.h"
#include "tests/support/watchdog.h"

namespace strake::test {
namespace {

const models::TransformerShape kShape = models::gpt2_shape(2, 48, 4, 130, 10);

std::vector<ParamSpec> specs_of_model() { return models::parameters_of(kShape).specs(); }

// Counts what is enqueued.
class LaunchCountingDevice final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override {
    class CountedStream final : public ForwardingStream {
     public:
      CountedStream(LaunchCountingDevice& device, std::unique_ptr<Stream> inner)
          : ForwardingStream(device, std::move(inner)), launches_(device.launches) {}
      void launch(const Operation& operation, Body body) override {
        ForwardingStream::launch(operation, std::move(body));
        ++launches_;
      }

     private:
      std::atomic<int>& launches_;
    };
    return std::make_unique<CountedStream>(*this, inner().make_stream(name, priority));
  }

  std::atomic<int> launches{0};
};

struct Initialized {
  std::map<std::string, std::vector<double>> params;
  std::vector<double> flat;
};

// `staging_elems`: 0: as many as are of use.
template <typename T>
Initialized initialize(const std::vector<ParamSpec>& specs, std::uint64_t seed, int threads = 1,
                       std::int64_t staging_elems = 0) {
  const auto device = make_cpu_device();
  const ParamLayout layout(specs);
  Arena memory("weights", MemoryKind::kDevice), host("host", MemoryKind::kHost);
  const Tensor weights = Tensor::reserve(memory, dtype_of<T>, {layout.total_elems()});
  const Tensor staging =
      Tensor::reserve(host, dtype_of<T>, {staging_elems > 0 ? staging_elems : models::initial_staging_elems(layout)});
  memory.allocate(*device);
  host.allocate(*device);
  const auto stream = device->make_stream("compute", StreamPriority::kNormal);
  const T* const values = cpu::data<T>(weights);
  std::fill_n(cpu::data<T>(weights), weights.elems(), T(7));  // as if memory had been used before
  models::initialize_weights(*stream, weights, staging, layout, seed, threads);
  Initialized out;
  out.flat.assign(values, values + weights.elems());
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const ParamId id{static_cast<std::int32_t>(i)};
    const T* const begin = values + layout.offset_elems(id);
    out.params[layout.spec(id).name].assign(begin, begin + layout.spec(id).elems());
  }
  return out;
}

TEST(InitializeTest, ValuesDoNotDependOnTheLayout) {
  const std::vector<ParamSpec> specs = specs_of_model();
  std::vector<ParamSpec> reversed(specs.rbegin(), specs.rend());
  EXPECT_EQ(initialize<float>(specs, 4).params, initialize<float>(reversed, 4).params);
  const std::vector<ParamSpec> few(specs.begin() + 3, specs.begin() + 9);
  const Initialized all = initialize<float>(specs, 4);
  const Initialized part = initialize<float>(few, 4);
  for (const auto& [name, values] : part.params) EXPECT_EQ(values, all.params.at(name)) << name;
}

// A parameter long enough for several threads, of an odd number of elements, between short ones.
std::vector<ParamSpec> long_and_short() {
  const InitialValue normal{.kind = InitialValue::Kind::kNormal, .standard_deviation = 0.02};
  return {{.name = "short", .global_shape = {77}, .initial = normal},
          {.name = "long", .global_shape = {333, 777}, .initial = normal},
          {.name = "ones", .global_shape = {45}, .initial = {.kind = InitialValue::Kind::kOnes}},
          {.name = "turned", .global_shape = {151, 200}, .initial = {normal.kind, 0.02, /*transposed=*/true}},
          {.name = "grouped", .global_shape = {120, 301}, .initial = {normal.kind, 0.02, false, {3, 1, 1}}}};
}

TEST(InitializeTest, ValuesDoNotDependOnThreadsOrChunks) {
  const Initialized expected = initialize<float>(long_and_short(), 9);
  for (const int threads : {1, 2, 3, 7}) {
    // Chunks of less than a thread's piece, of an odd length, across several parameters, and of everything.
    for (const std::int64_t staging_elems : {2 * 5003, 2 * 100'003, 2 * 1'000'000}) {
      EXPECT_EQ(initialize<float>(long_and_short(), 9, threads, staging_elems).flat, expected.flat)
          << threads << " threads, " << staging_elems << " elements of staging";
    }
  }
}

// One by one: value i of the parameter is its stream's i-th normal value, scaled.
TEST(InitializeTest, ValuesAreThoseOfTheStream) {
  const Initialized made = initialize<double>(long_and_short(), 9, 3);
  for (const ParamSpec& spec : long_and_short()) {
    if (spec.initial.kind != InitialValue::Kind::kNormal) continue;
    const Philox random(random_key(9, spec.name));
    const std::vector<double>& values = made.params.at(spec.name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::int64_t element = models::counted_element(spec, static_cast<std::int64_t>(i));
      ASSERT_EQ(values[i], 0.02 * random.normal(static_cast<std::uint64_t>(element))) << spec.name << " " << i;
    }
  }
}

// Stored [in, out], a weight holds what it holds when stored [out, in].
TEST(InitializeTest, AWeightStoredTransposedIsTheSameWeight) {
  constexpr std::int64_t kIn = 37, kOut = 53;
  const InitialValue normal{.kind = InitialValue::Kind::kNormal, .standard_deviation = 0.5};
  InitialValue turned = normal;
  turned.transposed = true;
  const auto as_is = initialize<float>({{.name = "w", .global_shape = {kOut, kIn}, .initial = normal}}, 2).params["w"];
  const auto stored = initialize<float>({{.name = "w", .global_shape = {kIn, kOut}, .initial = turned}}, 2).params["w"];
  for (std::int64_t in = 0; in < kIn; ++in) {
    for (std::int64_t out = 0; out < kOut; ++out) {
      ASSERT_EQ(stored[static_cast<std::size_t>(in * kOut + out)], as_is[static_cast<std::size_t>(out * kIn + in)]);
    }
  }
}

// Query, key and value of 6 heads that share 3 key-value heads, of 4 channels: stored by key-value head.
TEST(InitializeTest, RowsStoredByGroupAreTheSameRows) {
  constexpr std::int64_t kGroups = 3, kSize = 4, kColumns = 5, kRows = kGroups * 4 * kSize;
  const InitialValue normal{.kind = InitialValue::Kind::kNormal, .standard_deviation = 0.5};
  InitialValue grouped = normal;
  grouped.group_rows = {2 * kSize, kSize, kSize};
  for (const std::int64_t columns : {kColumns, std::int64_t{1}}) {
    const std::vector<std::int64_t> shape =
        columns == 1 ? std::vector<std::int64_t>{kRows} : std::vector<std::int64_t>{kRows, columns};
    const auto as_is = initialize<float>({{.name = "w", .global_shape = shape, .initial = normal}}, 2).params["w"];
    const auto stored = initialize<float>({{.name = "w", .global_shape = shape, .initial = grouped}}, 2).params["w"];
    std::vector<double> expected;
    const auto append_row = [&](std::int64_t row) {
      expected.insert(expected.end(), as_is.begin() + row * columns, as_is.begin() + (row + 1) * columns);
    };
    for (std::int64_t group = 0; group < kGroups; ++group) {
      for (std::int64_t row = 0; row < 2 * kSize; ++row) append_row(group * 2 * kSize + row);
      for (std::int64_t row = 0; row < kSize; ++row) append_row((2 * kGroups + group) * kSize + row);
      for (std::int64_t row = 0; row < kSize; ++row) append_row((3 * kGroups + group) * kSize + row);
    }
    EXPECT_EQ(stored, expected);
  }
}

TEST(InitializeTest, AlternatingRowsAreTheSameRows) {
  const ParamSpec spec{.name = "gate and up", .global_shape = {6, 2}, .initial = {.group_rows = {1, 1}}};
  std::vector<std::int64_t> counted;
  for (std::int64_t i = 0; i < 12; ++i) counted.push_back(models::counted_element(spec, i));
  EXPECT_EQ(counted, (std::vector<std::int64_t>{0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11}));
}

// Gate: the stream is held before the first chunk's copy. The second is made and its copy enqueued meanwhile, and no
// third, whose memory the first still lies in.
TEST(InitializeTest, AChunkIsMadeWhileTheOneBeforeIsCopied) {
  const Watchdog watchdog("weights made under a copy that is held");
  const auto cpu = make_cpu_device();
  LaunchCountingDevice device(*cpu);
  const ParamLayout layout(long_and_short());
  Arena memory("weights", MemoryKind::kDevice), host("host", MemoryKind::kHost);
  const Tensor weights = Tensor::reserve(memory, DType::kF32, {layout.total_elems()});
  const Tensor staging = Tensor::reserve(host, DType::kF32, {layout.total_elems() / 2});
  memory.allocate(device);
  host.allocate(device);
  const auto stream = device.make_stream("compute", StreamPriority::kNormal);
  Gate gate;
  stream->launch({.label = {"hold"}, .kind = "gate", .reads = {}, .writes = {}}, gate.body());
  std::thread maker([&] { models::initialize_weights(*stream, weights, staging, layout, 9, 2); });
  EXPECT_TRUE(wait_until([&] { return gate.reached() && device.launches == 1 + 2; })) << device.launches;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // a third would come soon
  EXPECT_EQ(device.launches, 1 + 2);
  gate.open();
  maker.join();
  EXPECT_EQ(device.launches, 1 + 4);
  const std::vector<double> expected = initialize<float>(long_and_short(), 9).flat;
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), cpu::data<float>(weights)));
}

TEST(InitializeTest, ValuesFollowSeedAndName) {
  const std::vector<ParamSpec> specs = specs_of_model();
  const Initialized one = initialize<float>(specs, 1), again = initialize<float>(specs, 1),
                    two = initialize<float>(specs, 2);
  EXPECT_EQ(one.flat, again.flat);
  EXPECT_NE(one.params.at("wte.weight"), two.params.at("wte.weight"));
  EXPECT_NE(one.params.at("h.0.mlp.fc.weight"), one.params.at("h.1.mlp.fc.weight"));
}

TEST(InitializeTest, DistributionsAreThoseOfTheSpecs) {
  const Initialized initialized = initialize<double>(specs_of_model(), 11);
  for (const auto& [name, values] : initialized.params) {
    double sum = 0, squares = 0;
    for (const double value : values) sum += value, squares += value * value;
    const double n = static_cast<double>(values.size());
    const double mean = sum / n, deviation = std::sqrt(squares / n - mean * mean);
    if (name.ends_with(".bias")) {
      EXPECT_EQ(squares, 0) << name;
    } else if (name.find("ln_") != std::string::npos) {
      EXPECT_EQ(std::count(values.begin(), values.end(), 1.0), static_cast<std::ptrdiff_t>(values.size())) << name;
    } else {
      // Projections into the residual stream: 0.02 / sqrt(2 * layers).
      const double expected = name.ends_with("proj.weight") ? 0.01 : 0.02;
      EXPECT_NEAR(deviation, expected, 5 * expected / std::sqrt(2 * n)) << name;
      EXPECT_NEAR(mean, 0, 5 * expected / std::sqrt(n)) << name;
    }
  }
}

TEST(InitializeTest, SinglePrecisionIsTheRoundedDouble) {
  const std::vector<ParamSpec> specs = specs_of_model();
  const Initialized single = initialize<float>(specs, 5), twice = initialize<double>(specs, 5);
  for (std::size_t i = 0; i < single.flat.size(); ++i) {
    ASSERT_EQ(single.flat[i], static_cast<double>(static_cast<float>(twice.flat[i]))) << i;
  }
}

TEST(InitializeTest, AlignmentGapsAreZero) {
  const ParamLayout layout = models::parameters_of(kShape);
  const Initialized initialized = initialize<float>(layout.specs(), 6);
  std::vector<bool> used(initialized.flat.size());
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const ParamId id{static_cast<std::int32_t>(i)};
    std::fill_n(used.begin() + layout.offset_elems(id), layout.spec(id).elems(), true);
  }
  ASSERT_GT(std::count(used.begin(), used.end(), false), 0);
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (used[i]) continue;
    ASSERT_EQ(initialized.flat[i], 0) << i;
  }
}

}  // namespace
}  // namespace strake::test
