#include "models/initialize.h"

#include <algorithm>

#include "runtime/base/random.h"
#include "runtime/device/host_memory.h"

namespace strake::models {
namespace {

template <typename T>
void fill(std::span<T> values, const ParamSpec& spec, std::uint64_t seed) {
  switch (spec.initial.kind) {
    case InitialValue::Kind::kZeros:
      std::fill(values.begin(), values.end(), T(0));
      return;
    case InitialValue::Kind::kOnes:
      std::fill(values.begin(), values.end(), T(1));
      return;
    case InitialValue::Kind::kNormal: {
      const Philox random(random_key(seed, spec.name));
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<T>(spec.initial.standard_deviation * random.normal(i));
      return;
    }
  }
}

}  // namespace

std::int64_t initial_staging_elems(const ParamLayout& layout) {
  std::int64_t largest = 0;
  for (const ParamSpec& spec : layout.specs()) largest = std::max(largest, spec.elems());
  return largest;
}

void initialize_weights(Stream& stream, const Tensor& weights, const Tensor& staging, const ParamLayout& layout,
                        std::uint64_t seed) {
  stream.zero({"weights zero", Phase::kOther}, weights);
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const ParamId id{static_cast<std::int32_t>(i)};
    const ParamSpec& spec = layout.spec(id);
    const Tensor part = staging.flat(0, spec.elems());
    if (weights.dtype() == DType::kF64) {
      fill(host_span<double>(part), spec, seed);
    } else {
      fill(host_span<float>(part), spec, seed);
    }
    stream.copy({spec.name, Phase::kOther}, layout.view(weights, id).reshape({spec.elems()}), part);
    stream.synchronize();  // staging is refilled next
  }
}

}  // namespace strake::models
