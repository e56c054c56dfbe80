#include "checkpoint/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::string_view kIndexEnd = ".index.json";
constexpr std::uint64_t kMaxIndexBytes = 64 << 20;
constexpr int kMaxHeaderDepth = 4;
constexpr std::size_t kMaxTensorAxes = 16;
constexpr std::size_t kMaxIndexedFiles = 1 << 12;
constexpr std::string_view kRemedy = "get or save the file again";

struct Type {
  std::string_view name;
  std::uint64_t size_bytes;
};
// Those that a file may hold; read_f32 takes fewer.
constexpr std::array kTypes{Type{"F32", 4}, Type{"F16", 2}, Type{"BF16", 2}, Type{"F64", 8},     Type{"BOOL", 1},
                            Type{"U8", 1},  Type{"I8", 1},  Type{"U16", 2},  Type{"I16", 2},     Type{"U32", 4},
                            Type{"I32", 4}, Type{"U64", 8}, Type{"I64", 8},  Type{"F8_E4M3", 1}, Type{"F8_E5M2", 1}};

const Type* type_named(std::string_view name) {
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), [&](const Type& type) { return type.name == name; });
  return found == kTypes.end() ? nullptr : &*found;
}

std::string_view safetensors_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF64:
      return "F64";
    case DType::kBF16:
      return "BF16";
    case DType::kI32:
      return "I32";
    case DType::kU8:
      return "U8";
    case DType::kI64:
      return "I64";
  }
  return "?";
}

// Never more than a glance of what a file says.
std::string glance(const std::string& text) { return json_quote(text.size() > 80 ? text.substr(0, 80) + "..." : text); }

[[noreturn]] void damaged(const std::string& path, const std::string& what, std::uint64_t offset = 0) {
  throw CorruptError(fmt::format("{}: {}; {}", path, what, kRemedy), path, offset);
}

// An object without repeated keys, not deeper than these files are.
Json parse_object(std::string_view text, const std::string& path) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxHeaderDepth) damaged(path, "its JSON is nested too deeply");
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second) {
      damaged(path, fmt::format("{} stands twice", glance(value.get<std::string>())));
    }
    return true;
  };
  Json object;
  try {
    object = Json::parse(text, check);
  } catch (const Json::exception&) {
    damaged(path, "its JSON is not valid");
  }
  if (!object.is_object()) damaged(path, "its JSON is not an object");
  return object;
}

// The library keeps every non-negative integer as unsigned; one that does not fit becomes a float and is refused.
std::optional<std::uint64_t> whole_number(const Json& value, std::uint64_t most) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > most) return std::nullopt;
  return value.get<std::uint64_t>();
}

SafetensorsEntry parse_entry(const std::string& name, const Json& object, std::uint64_t data_bytes,
                             const std::string& path) {
  const auto refuse = [&](const std::string& what) { damaged(path, fmt::format("tensor {} {}", glance(name), what)); };
  if (!object.is_object() || object.size() != 3) refuse("is not described by dtype, shape and data_offsets");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!object.contains(key)) refuse(fmt::format("has no {}", key));
  }
  SafetensorsEntry entry{.name = name, .dtype = {}, .shape = {}};
  if (!object.at("dtype").is_string()) refuse("has a dtype that is no text");
  entry.dtype = object.at("dtype").get<std::string>();
  const Type* type = type_named(entry.dtype);
  if (type == nullptr) refuse(fmt::format("is of dtype {}, which is not known", glance(entry.dtype)));

  const Json& shape = object.at("shape");
  if (!shape.is_array() || shape.size() > kMaxTensorAxes)
    refuse(fmt::format("has no shape of at most {} axes", kMaxTensorAxes));
  // As bytes, so that no product of it overflows.
  std::uint64_t size_bytes = type->size_bytes;
  for (const Json& item : shape) {
    const auto extent = whole_number(item, INT64_MAX);
    if (!extent) refuse("has a shape that is no list of whole numbers");
    if (*extent != 0 && size_bytes > INT64_MAX / *extent) refuse("has a shape of too many elements");
    size_bytes *= *extent;
    entry.shape.push_back(static_cast<std::int64_t>(*extent));
  }
  const Json& offsets = object.at("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2) refuse("has no two data_offsets");
  const auto begin = whole_number(offsets[0], data_bytes), end = whole_number(offsets[1], data_bytes);
  if (!begin || !end || *begin > *end) {
    refuse(fmt::format("has data_offsets {}, the file holds {} bytes of data", glance(offsets.dump()), data_bytes));
  }
  if (*end - *begin != size_bytes) {
    refuse(fmt::format("has {} bytes, its dtype and shape need {}", *end - *begin, size_bytes));
  }
  entry.offset_bytes = *begin;
  entry.size_bytes = size_bytes;
  return entry;
}

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu, mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t bits = exponent == 31 ? sign | 0x7f800000u | mantissa << 13  // infinity, NaN
                                            : sign | (exponent + 112) << 23 | mantissa << 13;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

bool plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos && name.find('\0') == name.npos;
}

}  // namespace

std::int64_t SafetensorsEntry::elems() const {
  return static_cast<std::int64_t>(size_bytes / type_named(dtype)->size_bytes);
}

std::vector<SafetensorsEntry> parse_safetensors_header(std::string_view header, std::uint64_t file_bytes,
                                                       const std::string& path) {
  const std::uint64_t data_begin = kLengthBytes + header.size();
  STRAKE_CHECK(data_begin <= file_bytes, "a header lies inside its file");
  const std::uint64_t data_bytes = file_bytes - data_begin;
  const Json object = parse_object(header, path);
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, value] : object.items()) {
    if (name == kMetadataKey) {
      const bool texts = value.is_object() &&
                         std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_string(); });
      if (!texts) damaged(path, fmt::format("{} holds more than texts", kMetadataKey));
    } else {
      entries.push_back(parse_entry(name, value, data_bytes, path));
    }
  }
  // Each tensor begins where the one before it ends: so they fill the data, each byte once.
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::pair(a.offset_bytes, a.size_bytes) < std::pair(b.offset_bytes, b.size_bytes);
  });
  std::uint64_t covered_bytes = 0;
  for (SafetensorsEntry& entry : entries) {
    if (entry.offset_bytes != covered_bytes) {
      damaged(path, fmt::format("tensor {} begins at byte {} of the data, the one before it ends at {}",
                                glance(entry.name), entry.offset_bytes, covered_bytes));
    }
    covered_bytes += entry.size_bytes;
    entry.offset_bytes += data_begin;
  }
  if (covered_bytes != data_bytes) {
    damaged(path, fmt::format("{} bytes of data, its tensors have {}", data_bytes, covered_bytes), data_begin);
  }
  std::sort(entries.begin(), entries.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) { return a.name < b.name; });
  return entries;
}

Safetensors Safetensors::open(Files& files, const fs::path& path) {
  fs::path place = path;
  if (files.is_directory(path)) {
    place = path / kSafetensorsName;
    if (!files.exists(place)) place += kIndexEnd;
    if (!files.exists(place)) {
      throw ConfigError(fmt::format("{}: holds neither {} nor {}{}; name the folder or file that has the weights",
                                    path.string(), kSafetensorsName, kSafetensorsName, kIndexEnd));
    }
  }
  Safetensors set;
  if (place.string().ends_with(kIndexEnd)) {
    set.add_index(files, place);
  } else {
    set.add_file(files, place);
  }
  set.sort();
  return set;
}

void Safetensors::add_file(Files& files, const fs::path& path) {
  const std::string name = path.string();
  std::unique_ptr<File> file = files.open(path, OpenMode::kRead);
  const std::uint64_t file_bytes = file->size_bytes();
  std::array<std::byte, kLengthBytes> length{};
  if (file->read(length, 0) != length.size()) damaged(name, "too short for a safetensors file");
  std::uint64_t header_bytes = 0;
  for (std::size_t i = length.size(); i-- > 0;)
    header_bytes = header_bytes << 8 | std::to_integer<std::uint64_t>(length[i]);
  if (header_bytes > kMaxSafetensorsHeaderBytes || header_bytes > file_bytes - kLengthBytes) {
    damaged(name, fmt::format("no safetensors file, or cut short: a header of {} bytes in a file of {}", header_bytes,
                              file_bytes));
  }
  std::string header(static_cast<std::size_t>(header_bytes), '\0');
  if (file->read(std::as_writable_bytes(std::span(header)), kLengthBytes) != header.size()) {
    damaged(name, "became shorter while it was read");
  }
  for (SafetensorsEntry& entry : parse_safetensors_header(header, file_bytes, name)) {
    entry.file = files_.size();
    entries_.push_back(std::move(entry));
  }
  files_.push_back(std::move(file));
}

void Safetensors::add_index(Files& files, const fs::path& path) {
  const std::string name = path.string();
  const Json index = parse_object(read_file(files, path, kMaxIndexBytes), name);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) damaged(name, "has no weight_map");
  if (map->empty()) damaged(name, "its weight_map is empty: it names no tensor and no file");
  std::map<std::string, std::size_t> numbers;  // of the files
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !plain_name(file.get<std::string>())) {
      damaged(name, fmt::format("tensor {} is not in a file beside it", glance(tensor)));
    }
    numbers.emplace(file.get<std::string>(), 0);
  }
  if (numbers.size() > kMaxIndexedFiles) damaged(name, "names too many files");
  for (auto& [file, number] : numbers) {
    number = files_.size();
    const fs::path place = path.parent_path() / file;
    if (!files.exists(place)) damaged(name, fmt::format("names {}, which is not there", glance(file)));
    add_file(files, place);
  }
  std::size_t found = 0;
  for (const SafetensorsEntry& entry : entries_) {
    const auto listed = map->find(entry.name);
    if (listed == map->end() || numbers.at(listed->get<std::string>()) != entry.file) {
      damaged(name,
              fmt::format("tensor {} is in {} and not listed there", glance(entry.name), path_of(entry).string()));
    }
    ++found;
  }
  if (found != map->size()) damaged(name, "lists tensors that its files do not hold");
}

void Safetensors::sort() {
  std::sort(entries_.begin(), entries_.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) { return a.name < b.name; });
}

const SafetensorsEntry* Safetensors::find(std::string_view name) const {
  const auto at =
      std::lower_bound(entries_.begin(), entries_.end(), name,
                       [](const SafetensorsEntry& entry, std::string_view key) { return entry.name < key; });
  return at != entries_.end() && at->name == name ? &*at : nullptr;
}

void Safetensors::read(const SafetensorsEntry& entry, std::uint64_t begin_bytes, std::span<std::byte> out) const {
  STRAKE_CHECK(begin_bytes <= entry.size_bytes && out.size() <= entry.size_bytes - begin_bytes,
               "read beyond tensor '" + entry.name + "'");
  const std::uint64_t offset = entry.offset_bytes + begin_bytes;
  const std::size_t got = files_[entry.file]->read(out, offset);
  if (got != out.size()) {
    damaged(path_of(entry).string(), fmt::format("became shorter while tensor {} was read", glance(entry.name)),
            offset + got);
  }
}

void Safetensors::read_f32(const SafetensorsEntry& entry, std::int64_t begin_elems, std::span<float> out) const {
  const bool wide = entry.dtype == "F32", half = entry.dtype == "F16";
  if (!wide && !half && entry.dtype != "BF16") {
    throw CorruptError(fmt::format("{}: tensor {} is of dtype {}; save it as F32, F16 or BF16", path_of(entry).string(),
                                   glance(entry.name), entry.dtype),
                       path_of(entry).string(), entry.offset_bytes);
  }
  const auto begin = static_cast<std::uint64_t>(begin_elems);
  if (wide) {
    read(entry, begin * sizeof(float), std::as_writable_bytes(out));
    return;
  }
  constexpr std::size_t kPieceElems = 64 * 1024;
  std::vector<std::uint16_t> piece(std::min(kPieceElems, out.size()));
  for (std::size_t done = 0; done < out.size();) {
    const std::span<std::uint16_t> bits = std::span(piece).first(std::min(kPieceElems, out.size() - done));
    read(entry, (begin + done) * sizeof(std::uint16_t), std::as_writable_bytes(bits));
    for (const std::uint16_t value : bits) out[done++] = half ? half_to_float(value) : to_float(BFloat16{value});
  }
}

SafetensorsWriter::SafetensorsWriter(Files& files, const fs::path& path, std::span<const SafetensorsSpec> specs,
                                     const std::map<std::string, std::string>& metadata)
    : files_(files), path_(path), temporary_(path) {
  temporary_ += ".tmp";
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  if (!metadata.empty()) object[std::string(kMetadataKey)] = metadata;
  std::uint64_t data_bytes = 0;
  for (const SafetensorsSpec& spec : specs) {
    STRAKE_CHECK(spec.name != kMetadataKey && !object.contains(spec.name), "tensor '" + spec.name + "' stands twice");
    std::uint64_t tensor_bytes = size_bytes(spec.dtype);
    for (const std::int64_t extent : spec.shape) tensor_bytes *= static_cast<std::uint64_t>(extent);
    object[spec.name] = {{"dtype", safetensors_type(spec.dtype)},
                         {"shape", spec.shape},
                         {"data_offsets", {data_bytes, data_bytes + tensor_bytes}}};
    data_bytes += tensor_bytes;
  }
  std::string header = object.dump();
  header.append((kLengthBytes - header.size() % kLengthBytes) % kLengthBytes, ' ');  // data start aligned
  size_bytes_ = kLengthBytes + header.size() + data_bytes;

  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (const std::uint64_t free = files.free_bytes(folder); free < size_bytes_) {
    throw io_error(fmt::format("write {}: {} MiB are needed, {} MiB are free", path.filename().string(),
                               size_bytes_ >> 20, free >> 20),
                   folder, ENOSPC);
  }
  try {
    file_ = files.open(temporary_, OpenMode::kReplace);
    file_->allocate(size_bytes_);
    std::array<std::byte, kLengthBytes> length;
    for (std::size_t i = 0; i < length.size(); ++i) length[i] = static_cast<std::byte>(header.size() >> (8 * i) & 0xff);
    append(length);
    append(bytes_of(header));
  } catch (const Error&) {
    discard();
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() { discard(); }

void SafetensorsWriter::discard() {
  if (file_ == nullptr) return;
  file_.reset();
  try {
    files_.remove(temporary_);
  } catch (const Error&) {  // the first error is already on its way
  }
}

void SafetensorsWriter::append(std::span<const std::byte> bytes) {
  STRAKE_CHECK(bytes.size() <= size_bytes_ - at_, "more bytes than the tensors have");
  file_->write(bytes, at_);
  at_ += bytes.size();
}

void SafetensorsWriter::finish() {
  STRAKE_CHECK(at_ == size_bytes_, "fewer bytes than the tensors have");
  file_->sync();
  file_->close();
  files_.rename(temporary_, path_);
  file_.reset();
  files_.sync_directory(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

}  // namespace strake::checkpoint
