// `strake ckpt diff`: what two checkpoints have alike, tensor by tensor and setting by setting, however many ranks
// wrote each.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "checkpoint/tensor_reader.h"
#include "launch/commands/commands.h"
#include "launch/run/checkpoint_source.h"
#include "runtime/base/dtype.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

using checkpoint::FoundCheckpoint;
using checkpoint::TensorRecord;
using FlatSettings = std::map<std::string, std::string>;

// Of one tensor that both have alike.
struct TensorDifference {
  std::int64_t elems = 0;       // that are not equal bit for bit
  std::int64_t not_finite = 0;  // of those, where the difference is no number
  double most = 0, most_relative = 0;
};

template <typename T>
double as_double(T value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return static_cast<double>(to_float(value));
  } else {
    return static_cast<double>(value);
  }
}

template <typename T>
void compare_elems(std::span<const std::byte> a, std::span<const std::byte> b, TensorDifference& found) {
  for (std::size_t at = 0; at < a.size(); at += sizeof(T)) {
    if (std::memcmp(a.data() + at, b.data() + at, sizeof(T)) == 0) continue;
    T left, right;
    std::memcpy(&left, a.data() + at, sizeof(T));
    std::memcpy(&right, b.data() + at, sizeof(T));
    const double x = as_double(left), y = as_double(right), difference = std::abs(x - y);
    ++found.elems;
    if (!std::isfinite(difference)) {
      ++found.not_finite;
      continue;
    }
    found.most = std::max(found.most, difference);
    if (difference > 0)
      found.most_relative = std::max(found.most_relative, difference / std::max(std::abs(x), std::abs(y)));
  }
}

void compare_bytes(DType dtype, std::span<const std::byte> a, std::span<const std::byte> b, TensorDifference& found) {
  if (std::memcmp(a.data(), b.data(), a.size()) == 0) return;
  switch (dtype) {
    case DType::kF32:
      return compare_elems<float>(a, b, found);
    case DType::kF64:
      return compare_elems<double>(a, b, found);
    case DType::kBF16:
      return compare_elems<BFloat16>(a, b, found);
    case DType::kI32:
      return compare_elems<std::int32_t>(a, b, found);
    case DType::kI64:
      return compare_elems<std::int64_t>(a, b, found);
    case DType::kU8:
      return compare_elems<std::uint8_t>(a, b, found);
  }
}

TensorDifference compare_tensor(checkpoint::TensorReader& a, const TensorRecord& in_a, checkpoint::TensorReader& b,
                                const TensorRecord& in_b) {
  constexpr std::int64_t kPieceElems = 1 << 18;
  TensorDifference found;
  std::vector<std::byte> left, right;
  for (std::int64_t at = 0; at < in_a.elems(); at += kPieceElems) {
    const auto piece = static_cast<std::size_t>(std::min(kPieceElems, in_a.elems() - at)) * size_bytes(in_a.dtype);
    left.resize(piece);
    right.resize(piece);
    a.read(in_a, at, left);
    b.read(in_b, at, right);
    compare_bytes(in_a.dtype, left, right, found);
  }
  return found;
}

std::string kind_of(const TensorRecord& tensor) {
  return fmt::format("{}[{}]", name_of(tensor.dtype), fmt::join(tensor.shape, ", "));
}

std::string difference_text(const TensorDifference& difference, const TensorRecord& tensor) {
  std::string out = fmt::format("{} of {} elements differ", difference.elems, tensor.elems());
  if (difference.elems > difference.not_finite) {
    out += fmt::format(", at most by {:.3g}, relative {:.3g}", difference.most, difference.most_relative);
  }
  if (difference.not_finite > 0) out += fmt::format(", {} of them to or from no finite number", difference.not_finite);
  return out;
}

// Line by line of what differs; in the order in which the tensors lie in `a`, so that each chunk is read about once.
std::map<std::string, std::string> differing_tensors(Files& files, const FoundCheckpoint& a, const FoundCheckpoint& b) {
  std::map<std::string, std::string> lines;
  std::vector<std::tuple<std::size_t, std::uint64_t, const TensorRecord*, const TensorRecord*>> both;
  for (const TensorRecord& in_a : a.manifest.tensors) {
    const TensorRecord* in_b = b.manifest.find(in_a.name);
    if (in_b == nullptr) {
      lines[in_a.name] = fmt::format("{}, only in A", kind_of(in_a));
    } else if (in_a.dtype != in_b->dtype || in_a.shape != in_b->shape) {
      lines[in_a.name] = fmt::format("{} in A, {} in B", kind_of(in_a), kind_of(*in_b));
    } else {
      both.emplace_back(in_a.shards.front().file, in_a.shards.front().offset_bytes, &in_a, in_b);
    }
  }
  for (const TensorRecord& in_b : b.manifest.tensors) {
    if (a.manifest.find(in_b.name) == nullptr) lines[in_b.name] = fmt::format("{}, only in B", kind_of(in_b));
  }
  std::sort(both.begin(), both.end());
  checkpoint::TensorReader from_a(files, a), from_b(files, b);
  for (const auto& [file, offset, in_a, in_b] : both) {
    const TensorDifference difference = compare_tensor(from_a, *in_a, from_b, *in_b);
    if (difference.elems > 0)
      lines[in_a->name] = fmt::format("{}, {}", kind_of(*in_a), difference_text(difference, *in_a));
  }
  return lines;
}

// "config.train.steps" -> "8"; the whole text where it is no object.
void flatten_settings(const std::string& name, const std::string& text, FlatSettings& settings) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) {
    settings[name] = text.empty() ? "not kept" : text;
    return;
  }
  if (json.empty()) return;
  const auto flat = json.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    std::string key = name + pointer;
    std::replace(key.begin(), key.end(), '/', '.');
    settings[key] = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
}

FlatSettings settings_of(const checkpoint::Meta& meta) {
  FlatSettings settings{{"step", fmt::format("{}", meta.step)},
                        {"tokens", fmt::format("{}", meta.tokens)},
                        {"attempt", fmt::format("{}", meta.attempt)},
                        {"ranks", fmt::format("{}", meta.world_size)}};
  if (meta.held_out_loss) settings["held_out_loss"] = fmt::format("{}", *meta.held_out_loss);
  flatten_settings("data_cursor", meta.data_cursor, settings);
  flatten_settings("tokenizer", meta.tokenizer, settings);
  flatten_settings("model", meta.model, settings);
  flatten_settings("choices", meta.choices, settings);
  flatten_settings("config", meta.config, settings);
  return settings;
}

void print_differing_settings(const checkpoint::Meta& a, const checkpoint::Meta& b) {
  const FlatSettings in_a = settings_of(a), in_b = settings_of(b);
  std::set<std::string> names;
  for (const auto& [name, value] : in_a) names.insert(name);
  for (const auto& [name, value] : in_b) names.insert(name);
  const auto shown = [](const FlatSettings& settings, const std::string& name) -> std::string {
    constexpr std::size_t kMostBytes = 80;
    const auto found = settings.find(name);
    if (found == settings.end()) return "absent";
    return found->second.size() <= kMostBytes ? found->second : found->second.substr(0, kMostBytes) + "...";
  };
  for (const std::string& name : names) {
    const auto left = in_a.find(name), right = in_b.find(name);
    if (left != in_a.end() && right != in_b.end() && left->second == right->second) continue;
    fmt::print("{}: {} -> {}\n", name, shown(in_a, name), shown(in_b, name));
  }
}

}  // namespace

int diff_checkpoints(const DiffArguments& arguments) {
  PosixFiles files;
  CheckpointSource source_a(files, arguments.a), source_b(files, arguments.b);
  const FoundCheckpoint a = source_a.next(), b = source_b.next();
  fmt::print("A: {}\nB: {}\n", a.path.string(), b.path.string());
  print_differing_settings(a.manifest.meta, b.manifest.meta);
  const std::map<std::string, std::string> lines = differing_tensors(files, a, b);
  for (const auto& [name, line] : lines) fmt::print("{}: {}\n", name, line);
  std::set<std::string_view> names;
  for (const FoundCheckpoint* each : {&a, &b}) {
    for (const TensorRecord& tensor : each->manifest.tensors) names.insert(tensor.name);
  }
  if (lines.empty()) {
    fmt::print("{} tensors, equal bit for bit\n", names.size());
    return static_cast<int>(ExitCode::kDone);
  }
  fmt::print("{} of {} tensors differ\n", lines.size(), names.size());
  return static_cast<int>(ExitCode::kFailure);
}

}  // namespace strake::launch
