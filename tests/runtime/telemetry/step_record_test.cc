#include "runtime/telemetry/step_record.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/memory_files.h"

namespace strake {
namespace {

using std::chrono::nanoseconds;

StepRecord example(std::int64_t step) {
  StepRecord record;
  record.run = 0x1122334455667788u;
  record.attempt = 3;
  record.rank = 7;
  record.step = step;
  record.unix_ns = 1'700'000'000'123'456'789;
  record.monotonic_ns = 987'654'321;
  record.wall = nanoseconds(1000 + step);
  record.tokens = 4096;
  record.loss = 0.1;  // not representable: all bits must come back
  record.grad_norm = 1e-300;
  record.learning_rate = 6e-4;
  record.flags = kStepHasEval | kStepHasCheckpoint;
  record.collectives = 9;
  record.comm_bytes = 1u << 31;
  record.comm_busy = nanoseconds(55);
  for (std::size_t i = 0; i < kStepClasses; ++i) record.durations[i] = nanoseconds(100 + i);
  return record;
}

void expect_equal(const StepRecord& a, const StepRecord& b) {
  EXPECT_EQ(encode(a), encode(b));
  EXPECT_EQ(a.run, b.run);
  EXPECT_EQ(a.attempt, b.attempt);
  EXPECT_EQ(a.rank, b.rank);
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.unix_ns, b.unix_ns);
  EXPECT_EQ(a.monotonic_ns, b.monotonic_ns);
  EXPECT_EQ(a.wall, b.wall);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.grad_norm, b.grad_norm);
  EXPECT_EQ(a.learning_rate, b.learning_rate);
  EXPECT_EQ(a.flags, b.flags);
  EXPECT_EQ(a.collectives, b.collectives);
  EXPECT_EQ(a.comm_bytes, b.comm_bytes);
  EXPECT_EQ(a.comm_busy, b.comm_busy);
  EXPECT_EQ(a.durations, b.durations);
}

std::string contents(Files& files) { return read_file(files, "/steps", 1 << 20); }

void write_example(Files& files, int records) {
  StepRecordFile file(files, "/steps");
  for (int step = 1; step <= records; ++step) file.append(example(step));
}

TEST(StepRecord, ComesBackAsWritten) {
  test::MemoryFiles files;
  write_example(files, 3);
  const StepRecords read = read_step_records(files, "/steps");
  ASSERT_EQ(read.records.size(), 3u);
  EXPECT_EQ(read.damaged, 0u);
  EXPECT_EQ(read.torn_bytes, 0u);
  for (int step = 1; step <= 3; ++step) expect_equal(read.records[static_cast<std::size_t>(step - 1)], example(step));
}

// The bytes of docs/formats.md: a reader in another language depends on them.
TEST(StepRecord, HasTheDocumentedBytes) {
  const std::string bytes = encode(example(5));
  ASSERT_EQ(bytes.size(), 320u);
  const auto number = [&](std::size_t at, std::size_t size) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) value |= std::uint64_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
    return value;
  };
  EXPECT_EQ(bytes.substr(0, 4), "STRP");
  EXPECT_EQ(number(4, 2), 1u);
  EXPECT_EQ(number(6, 2), 320u);
  EXPECT_EQ(number(8, 8), 0x1122334455667788u);
  EXPECT_EQ(number(16, 4), 3u);
  EXPECT_EQ(number(20, 4), 7u);
  EXPECT_EQ(number(24, 8), 5u);
  EXPECT_EQ(number(48, 8), 1005u);
  EXPECT_EQ(number(64, 8), 0x3fb999999999999au);  // 0.1
  EXPECT_EQ(number(88, 4), 3u);
  EXPECT_EQ(number(104, 8), 1u << 31);
  EXPECT_EQ(number(120, 8), 100u);          // data_wait
  EXPECT_EQ(number(120 + 8 * 8, 8), 108u);  // other
  for (std::size_t at = 120 + 9 * 8; at < 316; ++at) EXPECT_EQ(bytes[at], '\0') << at;
}

TEST(StepRecord, UnexplainedIsTheWallTimeThatNoClassHas) {
  StepRecord record = example(0);
  record.wall = nanoseconds(904 + 30);  // 100 + ... + 108 == 936
  EXPECT_EQ(record.unexplained(), nanoseconds(-2));
  record[StepClass::kBackward] = nanoseconds(0);
  EXPECT_EQ(record.unexplained(), nanoseconds(101));
}

TEST(StepRecord, AnyTornTailIsIgnoredByTheReaderAndCutByTheWriter) {
  for (std::size_t kept = 0; kept <= 2 * kStepRecordBytes; ++kept) {
    test::MemoryFiles files;
    write_example(files, 2);
    files.open("/steps", OpenMode::kUpdate)->truncate(kept);
    const std::size_t whole = kept / kStepRecordBytes;
    const StepRecords read = read_step_records(files, "/steps");
    ASSERT_EQ(read.records.size(), whole);
    ASSERT_EQ(read.torn_bytes, kept % kStepRecordBytes);
    StepRecordFile(files, "/steps").append(example(9));
    const StepRecords after = read_step_records(files, "/steps");
    ASSERT_EQ(after.records.size(), whole + 1);
    ASSERT_EQ(after.records.back().step, 9);
    ASSERT_EQ(after.torn_bytes + after.damaged, 0u);
  }
}

TEST(StepRecord, ATailOfZerosIsCut) {  // what a power loss may leave
  test::MemoryFiles files;
  write_example(files, 2);
  files.open("/steps", OpenMode::kAppend)->append(std::string(3 * kStepRecordBytes + 5, '\0'));
  StepRecordFile file(files, "/steps");
  EXPECT_EQ(contents(files).size(), 2 * kStepRecordBytes);
}

TEST(StepRecord, OneFlippedBitAnywhereLosesThatRecordOnly) {
  test::MemoryFiles files;
  write_example(files, 3);
  const std::string good = contents(files);
  for (std::size_t byte = 0; byte < kStepRecordBytes; ++byte) {
    std::string bad = good;
    bad[kStepRecordBytes + byte] = static_cast<char>(bad[kStepRecordBytes + byte] ^ (1 << (byte % 8)));
    replace_file(files, "/steps", bad);
    const StepRecords read = read_step_records(files, "/steps");
    ASSERT_EQ(read.damaged, 1u) << byte;
    ASSERT_EQ(read.records.size(), 2u) << byte;
    ASSERT_EQ(read.records[1].step, 3) << byte;
  }
  // Damage before the tail is no torn tail: opening to append keeps what lies behind it.
  StepRecordFile file(files, "/steps");
  EXPECT_EQ(contents(files).size(), good.size());
}

TEST(StepRecord, OfRedoneStepsTheLastWins) {
  test::MemoryFiles files;
  {
    StepRecordFile file(files, "/steps");
    for (const auto& [step, attempt] : {std::pair(1, 1u), {2, 1u}, {3, 1u}, {2, 2u}, {3, 2u}, {4, 2u}, {3, 3u}}) {
      StepRecord record = example(step);
      record.attempt = attempt;
      file.append(record);
    }
  }
  std::vector<std::pair<std::int64_t, std::uint32_t>> seen;
  for (const StepRecord& record : read_step_records(files, "/steps").last_of_each_step()) {
    seen.emplace_back(record.step, record.attempt);
  }
  EXPECT_EQ(seen, (std::vector<std::pair<std::int64_t, std::uint32_t>>{{1, 1}, {2, 2}, {3, 3}, {4, 2}}));
}

TEST(StepRecord, FilesAreNamedByRank) {
  EXPECT_EQ(step_record_file_name(3), "steps-rank-0003.bin");
  EXPECT_EQ(step_record_file_name(12345), "steps-rank-12345.bin");
}

}  // namespace
}  // namespace strake
