#include "models/initialize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "models/transformer.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"

namespace strake::test {
namespace {

const models::TransformerShape kShape = models::gpt2_shape(2, 48, 4, 130, 10);

std::vector<ParamSpec> specs_of_model() { return models::parameters_of(kShape).specs(); }

struct Initialized {
  std::map<std::string, std::vector<double>> params;
  std::vector<double> flat;
};

template <typename T>
Initialized initialize(const std::vector<ParamSpec>& specs, std::uint64_t seed) {
  const auto device = make_cpu_device();
  const ParamLayout layout(specs);
  Arena memory("weights", MemoryKind::kDevice), host("host", MemoryKind::kHost);
  const Tensor weights = Tensor::reserve(memory, dtype_of<T>, {layout.total_elems()});
  const Tensor staging = Tensor::reserve(host, dtype_of<T>, {models::initial_staging_elems(layout)});
  memory.allocate(*device);
  host.allocate(*device);
  const auto stream = device->make_stream("compute", StreamPriority::kNormal);
  const T* const values = cpu::data<T>(weights);
  std::fill_n(cpu::data<T>(weights), weights.elems(), T(7));  // as if memory had been used before
  models::initialize_weights(*stream, weights, staging, layout, seed);
  stream->synchronize();
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
