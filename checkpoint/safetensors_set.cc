#include "checkpoint/safetensors_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;

std::uint64_t bytes_of_tensor(const SafetensorsSpec& spec) {
  std::uint64_t bytes = size_bytes(spec.dtype);
  for (const std::int64_t extent : spec.shape) bytes *= static_cast<std::uint64_t>(extent);
  return bytes;
}

std::string index_name() { return fmt::format("{}.index.json", kSafetensorsName); }

// "model-00001-of-00003.safetensors".
std::string part_name(std::size_t part, std::size_t parts) {
  return fmt::format("model-{:05d}-of-{:05d}.safetensors", part + 1, parts);
}

bool is_part_name(const std::string& name) {
  std::string pattern = name;
  for (char& c : pattern) {
    if (c >= '0' && c <= '9') c = '0';
  }
  return pattern == "model-00000-of-00000.safetensors";
}

}  // namespace

std::vector<std::size_t> cut_into_files(std::span<const SafetensorsSpec> specs, std::uint64_t max_file_bytes) {
  std::vector<std::size_t> counts;
  std::uint64_t filled_bytes = 0;
  for (const SafetensorsSpec& spec : specs) {
    const std::uint64_t tensor_bytes = bytes_of_tensor(spec);
    if (counts.empty() || tensor_bytes > max_file_bytes - std::min(filled_bytes, max_file_bytes)) {
      counts.push_back(0);
      filled_bytes = 0;
    }
    ++counts.back();
    filled_bytes += tensor_bytes;
  }
  return counts;
}

SafetensorsSetWriter::SafetensorsSetWriter(Files& files, const fs::path& folder, std::span<const SafetensorsSpec> specs,
                                           std::uint64_t max_file_bytes,
                                           const std::map<std::string, std::string>& metadata)
    : files_(files), folder_(folder) {
  STRAKE_CHECK(!specs.empty(), "a set of no tensors");
  const std::vector<std::size_t> counts = cut_into_files(specs, max_file_bytes);
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  std::uint64_t total_bytes = 0;
  std::size_t first = 0;
  for (std::size_t part = 0; part < counts.size(); ++part) {
    const auto of_part = specs.subspan(first, counts[part]);
    const std::string name = counts.size() == 1 ? std::string(kSafetensorsName) : part_name(part, counts.size());
    std::uint64_t part_bytes = 0;
    for (const SafetensorsSpec& spec : of_part) {
      part_bytes += bytes_of_tensor(spec);
      map[spec.name] = name;
    }
    parts_.push_back({name, part_bytes, std::make_unique<SafetensorsWriter>(files, folder / name, of_part, metadata)});
    total_bytes += part_bytes;
    first += counts[part];
  }
  entry_ = folder / (counts.size() == 1 ? std::string(kSafetensorsName) : index_name());
  if (counts.size() == 1) return;
  const nlohmann::ordered_json index{{"metadata", {{"total_size", total_bytes}}}, {"weight_map", map}};
  index_ = index.dump(2) + "\n";
}

void SafetensorsSetWriter::append(std::span<const std::byte> bytes) {
  while (at_ < parts_.size() && parts_[at_].left_bytes == 0) ++at_;
  STRAKE_CHECK(at_ < parts_.size() && bytes.size() <= parts_[at_].left_bytes, "more bytes than the tensors have");
  parts_[at_].writer->append(bytes);
  parts_[at_].left_bytes -= bytes.size();
}

void SafetensorsSetWriter::finish() {
  // Files of an earlier set may have these names: its index must not lead to them.
  if (parts_.size() > 1) files_.remove(folder_ / index_name());
  for (Part& part : parts_) part.writer->finish();
  if (!index_.empty()) write_file_durably(files_, folder_ / index_name(), index_);
  for (const std::string& name : files_.list(folder_)) {
    if (is_of_an_earlier_set(name)) files_.remove(folder_ / name);
  }
  files_.sync_directory(folder_);
}

bool SafetensorsSetWriter::is_of_an_earlier_set(const std::string& name) const {
  if (std::ranges::any_of(parts_, [&](const Part& part) { return part.name == name; })) return false;
  return is_part_name(name) || name == kSafetensorsName || (index_.empty() && name == index_name());
}

}  // namespace strake::checkpoint
