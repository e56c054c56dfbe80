// StepRecord: where the time of one step of one rank went. Every rank appends one fixed-size record a
// step to its own file; the bytes are documented in docs/formats.md.
//
// Threads: values; StepRecordFile has one writer. Errors: IoError; a damaged record is skipped and
// counted by the reader, never an error.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "runtime/io/files.h"
#include "runtime/telemetry/step_class.h"

namespace strake {

// By class, indexed by StepClass.
using StepDurations = std::array<std::chrono::nanoseconds, kStepClasses>;

// Set bits of StepRecord::flags. On disk: never renumber.
inline constexpr std::uint32_t kStepHasCheckpoint = 1u << 0;
inline constexpr std::uint32_t kStepHasEval = 1u << 1;
inline constexpr std::uint32_t kStepNonFinite = 1u << 2;

struct StepRecord {
  std::uint64_t run = 0;  // the same in all files of a run folder
  std::uint32_t attempt = 0;
  std::uint32_t rank = 0;
  std::int64_t step = 0;     // the first step is 1
  std::int64_t unix_ns = 0;  // end of the step, clock of the host
  std::int64_t monotonic_ns = 0;
  std::chrono::nanoseconds wall{0};  // length of the step
  std::int64_t tokens = 0;           // of this rank
  double loss = 0;                   // mean over ranks
  double grad_norm = 0;
  double learning_rate = 0;
  std::uint32_t flags = 0;
  std::uint32_t collectives = 0;
  std::uint64_t comm_bytes = 0;           // handed to collectives by this rank
  std::chrono::nanoseconds comm_busy{0};  // time collectives ran, hidden or not
  StepDurations durations{};

  std::chrono::nanoseconds& operator[](StepClass c) { return durations[static_cast<std::size_t>(c)]; }
  std::chrono::nanoseconds operator[](StepClass c) const { return durations[static_cast<std::size_t>(c)]; }
  // wall minus the sum of the classes: what the breakdown does not explain.
  std::chrono::nanoseconds unexplained() const;
};

inline constexpr std::size_t kStepRecordBytes = 320;

std::string encode(const StepRecord& record);  // kStepRecordBytes bytes

// "steps-rank-0003.bin"
std::string step_record_file_name(int rank);

class StepRecordFile {
 public:
  // Opens or creates; cuts a torn tail.
  StepRecordFile(Files& files, const std::filesystem::path& path);
  // Ordering: in the page cache on return, so it survives the death of the process, not a power loss.
  void append(const StepRecord& record) { file_->append(encode(record)); }

 private:
  std::unique_ptr<File> file_;
};

struct StepRecords {
  std::vector<StepRecord> records;  // as written: a redone step occurs again
  std::size_t damaged = 0;          // whole records with a wrong checksum, skipped
  std::size_t torn_bytes = 0;       // behind the last whole record

  // One record a step, ascending: of redone steps the last one written.
  std::vector<StepRecord> last_of_each_step() const;
};

// Throws IoError if the file cannot be read.
StepRecords read_step_records(Files& files, const std::filesystem::path& path);

}  // namespace strake
