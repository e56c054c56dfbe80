#include "checkpoint/compatibility.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <vector>

#include "runtime/base/error.h"

namespace strake::checkpoint {
namespace {

using Json = nlohmann::json;

std::string describe(DType dtype, std::span<const std::int64_t> shape) {
  return fmt::format("{}[{}]", name_of(dtype), fmt::join(shape, ", "));
}

// Which keys of two configurations differ; the whole texts where they are not objects.
void compare_models(const std::string& saved, const std::string& ours, std::vector<std::string>& differences) {
  const Json a = Json::parse(saved, nullptr, false);
  const Json b = Json::parse(ours, nullptr, false);
  if (!a.is_object() || !b.is_object()) {
    if (saved != ours) differences.push_back(fmt::format("model '{}', ours '{}'", saved, ours));
    return;
  }
  std::set<std::string> keys;
  for (const auto& item : a.items()) keys.insert(item.key());
  for (const auto& item : b.items()) keys.insert(item.key());
  for (const std::string& key : keys) {
    const std::string theirs = a.contains(key) ? a.at(key).dump() : "absent";
    const std::string mine = b.contains(key) ? b.at(key).dump() : "absent";
    if (theirs != mine) differences.push_back(fmt::format("model.{} is {}, ours {}", key, theirs, mine));
  }
}

}  // namespace

void check_compatible(const Manifest& manifest, std::span<const HeldRange> wanted, const std::string& expected_model,
                      ExtraTensors extra, const std::string& path) {
  std::vector<std::string> differences;
  if (!expected_model.empty()) compare_models(manifest.meta.model, expected_model, differences);
  std::set<std::string_view> ours;
  for (const HeldRange& range : wanted) {
    ours.insert(range.name);
    const TensorRecord* saved = manifest.find(range.name);
    if (saved == nullptr) {
      differences.push_back(fmt::format("{} is missing", range.name));
    } else if (saved->dtype != range.dtype || saved->shape != range.global_shape) {
      differences.push_back(fmt::format("{} is {}, ours {}", range.name, describe(saved->dtype, saved->shape),
                                        describe(range.dtype, range.global_shape)));
    }
  }
  if (extra == ExtraTensors::kRefuse) {
    for (const TensorRecord& tensor : manifest.tensors) {
      if (!ours.contains(tensor.name)) differences.push_back(fmt::format("{} is not ours", tensor.name));
    }
  }
  if (differences.empty()) return;
  constexpr std::size_t kMostShown = 8;
  const std::size_t shown = std::min(differences.size(), kMostShown);
  std::string more;
  if (differences.size() > shown) more = fmt::format("; and {} more", differences.size() - shown);
  differences.resize(shown);
  throw IncompatibleCheckpointError(
      fmt::format("{}: is of another model: {}{}; set the model as it was, or choose another run folder", path,
                  fmt::join(differences, "; "), more));
}

}  // namespace strake::checkpoint
