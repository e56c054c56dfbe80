#include "checkpoint/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/io/crc32c.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kMajorVersion = 1;
constexpr std::int64_t kMinorVersion = 2;

// The whole text is kHead, the body, kCrcHead, eight hexadecimal digits, kTail. The checksum covers all before
// kCrcHead.
constexpr std::string_view kHead = R"({"manifest":)";
constexpr std::string_view kCrcHead = R"(,"crc32c":")";
constexpr std::string_view kTail = "\"}\n";
constexpr std::size_t kCrcDigits = 8;

// Bounds that no honest manifest reaches and that keep a hostile one from costing more than its own size.
constexpr int kMaxDepth = 8;
constexpr std::size_t kMaxValues = std::size_t{4} << 20;
constexpr std::size_t kMaxFiles = 1 << 16;
constexpr std::size_t kMaxAxes = 8;
constexpr std::int64_t kMaxElems = std::int64_t{1} << 56;
constexpr std::int64_t kMaxCount = std::int64_t{1} << 62;

std::string hex(std::uint32_t crc) { return fmt::format("{:08x}", crc); }

// The shortest digits that are this number again.
std::string text_of(std::optional<double> number) { return number ? fmt::format("{}", *number) : std::string(); }

std::optional<DType> dtype_named(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kI32, DType::kU8, DType::kI64}) {
    if (name_of(dtype) == name) return dtype;
  }
  return std::nullopt;
}

class Parser {
 public:
  explicit Parser(const std::string& path) : path_(path) {}

  Manifest parse(std::string_view text) {
    const Json body = verified_body(text);
    const Json& format = member(body, "format", Json::value_t::object);
    const std::int64_t major = integer(format, "major", 0, kMaxCount);
    const std::int64_t minor = integer(format, "minor", 0, kMaxCount);
    if (major != kMajorVersion) {
      throw IncompatibleCheckpointError(
          fmt::format("{}: format {}.{}, this program reads {}.x: use the program version "
                      "that wrote it",
                      path_, major, minor, kMajorVersion));
    }
    Manifest manifest;
    read_meta(body, minor, manifest.meta);
    read_files(body, manifest.files);
    read_tensors(body, manifest);
    prove_disjoint(manifest);
    return manifest;
  }

 private:
  [[noreturn]] void damaged(const std::string& what) const {
    throw CorruptError(fmt::format("{}: {}", path_, what), path_, 0);
  }

  Json verified_body(std::string_view text) const {
    const std::size_t trailer = kCrcHead.size() + kCrcDigits + kTail.size();
    if (text.size() > kMaxManifestBytes) damaged("larger than any manifest");
    if (text.size() < kHead.size() + trailer || !text.starts_with(kHead) || !text.ends_with(kTail) ||
        text.substr(text.size() - trailer, kCrcHead.size()) != kCrcHead) {
      damaged("not a complete manifest");
    }
    const std::string_view covered = text.substr(0, text.size() - trailer);
    if (text.substr(text.size() - kTail.size() - kCrcDigits, kCrcDigits) != hex(crc32c(bytes_of(covered)))) {
      damaged("its checksum does not match");
    }
    const std::string_view body = covered.substr(kHead.size());
    check_bounds(body);
    Json json = Json::parse(body, nullptr, false);
    if (json.is_discarded() || !json.is_object()) damaged("not JSON");
    // Only the canonical form is accepted: sorted keys, no space, no duplicate.
    if (json.dump(-1, ' ', false, Json::error_handler_t::replace) != body) damaged("not in canonical form");
    return json;
  }

  // Depth and number of values, before any memory is spent on them.
  void check_bounds(std::string_view body) const {
    int depth = 0;
    std::size_t values = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < body.size(); ++i) {
      const char c = body[i];
      if (in_string) {
        if (c == '\\') ++i;
        if (c == '"') in_string = false;
        continue;
      }
      if (c == '"') in_string = true;
      if ((c == '[' || c == '{') && ++depth > kMaxDepth) damaged("nested too deeply");
      if (c == ']' || c == '}') --depth;
      if ((c == ',' || c == '[' || c == '{') && ++values > kMaxValues) damaged("too many values");
    }
  }

  const Json& member(const Json& object, const char* key, Json::value_t type) const {
    if (!object.is_object()) damaged(fmt::format("'{}' is looked for in something else than an object", key));
    const auto found = object.find(key);
    if (found == object.end()) damaged(fmt::format("'{}' is missing", key));
    if (found->type() != type) damaged(fmt::format("'{}' is of the wrong type", key));
    return *found;
  }

  std::string text(const Json& object, const char* key) const {
    return member(object, key, Json::value_t::string).get<std::string>();
  }

  std::int64_t integer(const Json& value, std::string_view what, std::int64_t least, std::int64_t most) const {
    // The library keeps every non-negative integer as unsigned; one that does not fit becomes a float and is refused.
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > static_cast<std::uint64_t>(most) ||
        static_cast<std::int64_t>(value.get<std::uint64_t>()) < least) {
      damaged(fmt::format("'{}' is not an integer from {} to {}", what, least, most));
    }
    return static_cast<std::int64_t>(value.get<std::uint64_t>());
  }
  std::int64_t integer(const Json& object, const char* key, std::int64_t least, std::int64_t most) const {
    return integer(member(object, key, Json::value_t::number_unsigned), std::string_view(key), least, most);
  }

  // A fraction is kept as text, in the one form that text_of gives it.
  std::optional<double> number_or_none(const std::string& text, std::string_view what) const {
    if (text.empty()) return std::nullopt;
    double value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    if (parsed.ec != std::errc() || !std::isfinite(value) || text_of(value) != text) {
      damaged(fmt::format("'{}' is not a number", what));
    }
    return value;
  }

  void read_meta(const Json& body, std::int64_t minor, Meta& meta) const {
    meta.step = integer(body, "step", 0, kMaxCount);
    meta.tokens = integer(body, "tokens", 0, kMaxCount);
    meta.attempt = integer(body, "attempt", 0, kMaxCount);
    meta.data_cursor = text(body, "data_cursor");
    meta.tokenizer = text(body, "tokenizer");
    meta.model = text(body, "model");
    meta.choices = text(body, "choices");
    if (minor >= 1) meta.config = text(body, "config");
    meta.config_hash = text(body, "config_hash");
    if (minor >= 2) meta.held_out_loss = number_or_none(text(body, "held_out_loss"), "held_out_loss");
    if (minor >= 2) meta.step_metrics = text(body, "step_metrics");
    meta.world_size = static_cast<int>(integer(member(body, "world", Json::value_t::object), "size", 1, kMaxFiles));
  }

  void read_files(const Json& body, std::vector<FileRecord>& files) const {
    const Json& list = member(body, "files", Json::value_t::array);
    if (list.size() > kMaxFiles) damaged("too many files");
    for (const Json& item : list) {
      FileRecord file;
      file.name = text(item, "name");
      if (!valid_file_name(file.name) || file.name == kManifestName) damaged("a file has a name that is not allowed");
      file.size_bytes = static_cast<std::uint64_t>(integer(item, "bytes", 0, kMaxCount));
      file.chunk_bytes = static_cast<std::uint64_t>(integer(item, "chunk_bytes", kMinChunkBytes, kMaxChunkBytes));
      const Json& crcs = member(item, "crc32c", Json::value_t::array);
      if (crcs.size() != (file.size_bytes + file.chunk_bytes - 1) / file.chunk_bytes) {
        damaged(fmt::format("{} has {} checksums for {} bytes", file.name, crcs.size(), file.size_bytes));
      }
      file.chunk_crcs.reserve(crcs.size());
      for (const Json& crc : crcs) {
        file.chunk_crcs.push_back(static_cast<std::uint32_t>(
            integer(crc, std::string_view("crc32c"), 0, std::numeric_limits<std::uint32_t>::max())));
      }
      files.push_back(std::move(file));
    }
    std::vector<std::string_view> names;
    for (const FileRecord& file : files) names.push_back(file.name);
    std::sort(names.begin(), names.end());
    if (std::adjacent_find(names.begin(), names.end()) != names.end()) damaged("a file is listed twice");
  }

  void read_tensors(const Json& body, Manifest& manifest) const {
    for (const Json& item : member(body, "tensors", Json::value_t::array)) {
      TensorRecord tensor;
      tensor.name = text(item, "name");
      if (!valid_tensor_name(tensor.name)) damaged("a tensor has a name that is not allowed");
      if (!manifest.tensors.empty() && !(manifest.tensors.back().name < tensor.name)) {
        damaged(fmt::format("tensor {} is out of order or listed twice", tensor.name));
      }
      const auto dtype = dtype_named(text(item, "dtype"));
      if (!dtype) damaged(fmt::format("tensor {} is of an unknown dtype", tensor.name));
      tensor.dtype = *dtype;
      std::int64_t elems = 1;
      const Json& shape = member(item, "shape", Json::value_t::array);
      if (shape.size() > kMaxAxes) damaged(fmt::format("tensor {} has too many axes", tensor.name));
      for (const Json& extent : shape) {
        tensor.shape.push_back(integer(extent, std::string_view("shape"), 1, kMaxElems));
        if (tensor.shape.back() > kMaxElems / elems) damaged(fmt::format("tensor {} is too large", tensor.name));
        elems *= tensor.shape.back();
      }
      read_shards(item, manifest.files, elems, tensor);
      manifest.tensors.push_back(std::move(tensor));
    }
  }

  // Shards stand in order and each begins where the last one ended: so they cover the tensor, each element once.
  void read_shards(const Json& item, const std::vector<FileRecord>& files, std::int64_t elems,
                   TensorRecord& tensor) const {
    std::int64_t covered_elems = 0;
    for (const Json& entry : member(item, "shards", Json::value_t::array)) {
      ShardRecord shard;
      if (files.empty()) damaged("there are shards and no files");
      shard.file = static_cast<std::size_t>(integer(entry, "file", 0, static_cast<std::int64_t>(files.size()) - 1));
      shard.offset_bytes = static_cast<std::uint64_t>(integer(entry, "offset", 0, kMaxCount));
      shard.begin_elems = integer(entry, "begin_elems", 0, elems);
      shard.elems = integer(entry, "elems", 1, elems);
      const std::uint64_t size = static_cast<std::uint64_t>(shard.elems) * size_bytes(tensor.dtype);
      if (static_cast<std::uint64_t>(integer(entry, "bytes", 0, kMaxCount)) != size) {
        damaged(fmt::format("a shard of tensor {} has the wrong number of bytes", tensor.name));
      }
      const std::uint64_t file_bytes = files[shard.file].size_bytes;
      if (shard.offset_bytes > file_bytes || size > file_bytes - shard.offset_bytes) {
        damaged(fmt::format("a shard of tensor {} reaches beyond the end of {}", tensor.name, files[shard.file].name));
      }
      if (shard.begin_elems != covered_elems) {
        damaged(fmt::format("tensor {} is not covered exactly once at element {}", tensor.name, covered_elems));
      }
      if (shard.elems > elems - covered_elems) damaged(fmt::format("tensor {} has too many elements", tensor.name));
      covered_elems += shard.elems;
      tensor.shards.push_back(shard);
    }
    if (covered_elems != elems) damaged(fmt::format("tensor {} ends at element {}", tensor.name, covered_elems));
  }

  void prove_disjoint(const Manifest& manifest) const {
    std::vector<std::tuple<std::size_t, std::uint64_t, std::uint64_t>> ranges;  // file, begin, end
    for (const TensorRecord& tensor : manifest.tensors) {
      for (const ShardRecord& shard : tensor.shards) {
        const std::uint64_t size = static_cast<std::uint64_t>(shard.elems) * size_bytes(tensor.dtype);
        ranges.emplace_back(shard.file, shard.offset_bytes, shard.offset_bytes + size);
      }
    }
    std::sort(ranges.begin(), ranges.end());
    for (std::size_t i = 1; i < ranges.size(); ++i) {
      const auto& [file, begin, end] = ranges[i];
      const auto& [previous_file, previous_begin, previous_end] = ranges[i - 1];
      if (file == previous_file && begin < previous_end) {
        damaged(fmt::format("two shards share bytes at {} of {}", begin, manifest.files[file].name));
      }
    }
  }

  const std::string& path_;
};

}  // namespace

std::int64_t TensorRecord::elems() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) product *= extent;
  return product;
}

std::uint64_t Manifest::total_bytes() const {
  std::uint64_t sum = 0;
  for (const FileRecord& file : files) sum += file.size_bytes;
  return sum;
}

const TensorRecord* Manifest::find(std::string_view name) const {
  const auto at = std::lower_bound(tensors.begin(), tensors.end(), name,
                                   [](const TensorRecord& tensor, std::string_view key) { return tensor.name < key; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

std::string serialize(const Manifest& manifest) {
  const Meta& meta = manifest.meta;
  Json body = {
      {"format", {{"major", kMajorVersion}, {"minor", kMinorVersion}}},
      {"step", static_cast<std::uint64_t>(meta.step)},
      {"tokens", static_cast<std::uint64_t>(meta.tokens)},
      {"attempt", static_cast<std::uint64_t>(meta.attempt)},
      {"world", {{"size", meta.world_size}}},
      {"data_cursor", meta.data_cursor},
      {"tokenizer", meta.tokenizer},
      {"model", meta.model},
      {"choices", meta.choices},
      {"config", meta.config},
      {"config_hash", meta.config_hash},
      {"held_out_loss", text_of(meta.held_out_loss)},
      {"step_metrics", meta.step_metrics},
      {"files", Json::array()},
      {"tensors", Json::array()},
  };
  for (const FileRecord& file : manifest.files) {
    body["files"].push_back({{"name", file.name},
                             {"bytes", file.size_bytes},
                             {"chunk_bytes", file.chunk_bytes},
                             {"crc32c", file.chunk_crcs}});
  }
  for (const TensorRecord& tensor : manifest.tensors) {
    Json shards = Json::array();
    for (const ShardRecord& shard : tensor.shards) {
      shards.push_back({{"file", shard.file},
                        {"offset", shard.offset_bytes},
                        {"bytes", static_cast<std::uint64_t>(shard.elems) * size_bytes(tensor.dtype)},
                        {"begin_elems", shard.begin_elems},
                        {"elems", shard.elems}});
    }
    body["tensors"].push_back(
        {{"name", tensor.name}, {"dtype", name_of(tensor.dtype)}, {"shape", tensor.shape}, {"shards", shards}});
  }
  std::string text(kHead);
  try {
    text += body.dump();
  } catch (const Json::exception& error) {
    throw ConfigError(fmt::format("the checkpoint's description cannot be written: {}", error.what()));
  }
  const std::uint32_t crc = crc32c(bytes_of(text));
  return text.append(kCrcHead).append(hex(crc)).append(kTail);
}

Manifest parse_manifest(std::string_view text, const std::string& path) { return Parser(path).parse(text); }

bool valid_tensor_name(std::string_view name) {
  if (name.empty() || name.size() > 256 || name.front() == '/' || name.back() == '/') return false;
  if (name.find("..") != name.npos || name.find("//") != name.npos || name.starts_with("./") ||
      name.find("/./") != name.npos || name.ends_with("/.") || name == ".") {
    return false;
  }
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '-' || c == '/';
  });
}

bool valid_file_name(std::string_view name) {
  const auto letter_or_digit = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (name.empty() || name.size() > 64 || !letter_or_digit(name.front()) || name.find("..") != name.npos) return false;
  return std::all_of(name.begin(), name.end(),
                     [&](char c) { return letter_or_digit(c) || c == '.' || c == '_' || c == '-'; });
}

}  // namespace strake::checkpoint
