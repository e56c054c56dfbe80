#include "runtime/telemetry/step_record.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <type_traits>

#include "runtime/base/check.h"
#include "runtime/io/crc32c.h"

namespace strake {
namespace {

static_assert(std::endian::native == std::endian::little, "records are little-endian");

constexpr std::uint32_t kMagic = 0x50525453;  // "STRP"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kClassSlots = 24;  // on disk; those past kStepClasses are zero
constexpr std::size_t kCrcOffset = kStepRecordBytes - sizeof(std::uint32_t);

std::uint32_t checksum(std::string_view record) { return crc32c(bytes_of(record.substr(0, kCrcOffset))); }

// Walks over the fields of a record in the order of docs/formats.md, to write or to read them.
template <typename Record, typename Visit>
void for_each_field(Record& r, Visit&& visit) {
  visit(r.run);
  visit(r.attempt);
  visit(r.rank);
  visit(r.step);
  visit(r.unix_ns);
  visit(r.monotonic_ns);
  visit(r.wall);
  visit(r.tokens);
  visit(r.loss);
  visit(r.grad_norm);
  visit(r.learning_rate);
  visit(r.flags);
  visit(std::uint32_t{0});  // reserved
  visit(r.collectives);
  visit(std::uint32_t{0});  // reserved
  visit(r.comm_bytes);
  visit(r.comm_busy);
  for (auto& duration : r.durations) visit(duration);
}

std::optional<StepRecord> decode(std::string_view bytes) {
  std::uint32_t magic, crc;
  std::uint16_t version, size;
  std::memcpy(&magic, bytes.data(), sizeof magic);
  std::memcpy(&version, bytes.data() + 4, sizeof version);
  std::memcpy(&size, bytes.data() + 6, sizeof size);
  std::memcpy(&crc, bytes.data() + kCrcOffset, sizeof crc);
  if (magic != kMagic || version != kVersion || size != kStepRecordBytes) return std::nullopt;
  if (crc != checksum(bytes)) return std::nullopt;
  StepRecord record;
  std::size_t at = 8;
  for_each_field(record, [&]<typename Field>(Field&& field) {
    if constexpr (!std::is_rvalue_reference_v<Field&&>) std::memcpy(&field, bytes.data() + at, sizeof field);
    at += sizeof field;
  });
  return record;
}

std::optional<StepRecord> read_record(const File& file, std::uint64_t offset) {
  std::array<char, kStepRecordBytes> bytes;
  if (file.read(std::as_writable_bytes(std::span(bytes)), offset) != bytes.size()) return std::nullopt;
  return decode(std::string_view(bytes.data(), bytes.size()));
}

}  // namespace

std::chrono::nanoseconds StepRecord::unexplained() const {
  std::chrono::nanoseconds rest = wall;
  for (const std::chrono::nanoseconds duration : durations) rest -= duration;
  return rest;
}

std::string encode(const StepRecord& record) {
  std::string bytes(kStepRecordBytes, '\0');
  constexpr std::uint16_t kSize = kStepRecordBytes;
  std::memcpy(bytes.data(), &kMagic, sizeof kMagic);
  std::memcpy(bytes.data() + 4, &kVersion, sizeof kVersion);
  std::memcpy(bytes.data() + 6, &kSize, sizeof kSize);
  std::size_t at = 8;
  for_each_field(record, [&](const auto& field) {
    std::memcpy(bytes.data() + at, &field, sizeof field);
    at += sizeof field;
  });
  STRAKE_CHECK(at + (kClassSlots - kStepClasses) * 8 == kCrcOffset - 4, "the layout of docs/formats.md");
  const std::uint32_t crc = checksum(bytes);
  std::memcpy(bytes.data() + kCrcOffset, &crc, sizeof crc);
  return bytes;
}

std::string step_record_file_name(int rank) { return fmt::format("steps-rank-{:04}.bin", rank); }

StepRecordFile::StepRecordFile(Files& files, const std::filesystem::path& path) {
  {
    // The tail is torn if a record is there in part, or whole but never reached the disk.
    const auto file = files.open(path, OpenMode::kOpen);
    const std::uint64_t size_bytes = file->size_bytes();
    std::uint64_t whole_bytes = size_bytes / kStepRecordBytes * kStepRecordBytes;
    while (whole_bytes > 0 && !read_record(*file, whole_bytes - kStepRecordBytes)) whole_bytes -= kStepRecordBytes;
    if (whole_bytes < size_bytes) file->truncate(whole_bytes);
  }
  file_ = files.open(path, OpenMode::kAppend);
}

std::vector<StepRecord> StepRecords::last_of_each_step() const {
  std::map<std::int64_t, const StepRecord*> last;
  for (const StepRecord& record : records) last[record.step] = &record;
  std::vector<StepRecord> out;
  for (const auto& [step, record] : last) out.push_back(*record);
  return out;
}

StepRecords read_step_records(Files& files, const std::filesystem::path& path) {
  const auto file = files.open(path, OpenMode::kRead);
  const std::uint64_t size_bytes = file->size_bytes();
  StepRecords out;
  std::uint64_t at = 0;
  for (; at + kStepRecordBytes <= size_bytes; at += kStepRecordBytes) {
    if (const auto record = read_record(*file, at)) {
      out.records.push_back(*record);
    } else {
      ++out.damaged;
    }
  }
  out.torn_bytes = size_bytes - at;
  return out;
}

}  // namespace strake
