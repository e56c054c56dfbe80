#include "models/formats/counted_storage.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "models/transformer.h"
#include "runtime/base/error.h"

namespace strake::models {

std::optional<TransformerShape> shape_of_counted_storage(const std::string& model) {
  const auto json = nlohmann::json::parse(model, nullptr, false);
  if (!json.is_object() || !json.contains("kind")) return std::nullopt;
  const auto number = [&](const char* key) {
    constexpr std::int64_t kMost = 1 << 24;
    const auto found = json.find(key);
    const bool sound = found != json.end() && found->is_number_unsigned() && found->get<std::uint64_t>() > 0 &&
                       found->get<std::uint64_t>() <= kMost;
    if (!sound)
      throw IncompatibleCheckpointError(fmt::format("the checkpoint's model description has no sound {}", key));
    return found->get<std::int64_t>();
  };
  if (json.at("kind") != "gpt2") {
    throw IncompatibleCheckpointError(
        fmt::format("the checkpoint's model is of kind {}, earlier versions knew \"gpt2\"", json.at("kind").dump()));
  }
  const std::int64_t layers = number("layers"), channels = number("channels"), heads = number("heads");
  if (layers > 1000 || channels % heads != 0)
    throw IncompatibleCheckpointError("the checkpoint's model description contradicts itself");
  return gpt2_shape(layers, channels, heads, number("vocab"), number("sequence"));
}

std::vector<ForeignTensor> counted_storage_tensors(const TransformerShape& shape) {
  const ParamLayout layout = parameters_of(shape);
  std::vector<ForeignTensor> tensors;
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const ParamId param{static_cast<std::int32_t>(i)};
    tensors.push_back({layout.spec(param).name, counted_shape(layout.spec(param)), param});
  }
  return tensors;
}

}  // namespace strake::models
