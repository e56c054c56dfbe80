#include "runtime/device/order_checker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/device/recording.h"

namespace strake::test {
namespace {

// Three streams, two arenas of 256 bytes. The checker sits on the plan device: it needs no execution, and the
// races of these tests never happen.
class OrderCheckerTest : public testing::Test {
 protected:
  enum Streams : std::size_t { kCompute, kComm, kCopy };

  static Tensor bytes(const Arena& arena, std::size_t begin_bytes, std::int64_t size_bytes) {
    return Tensor(arena, begin_bytes, DType::kU8, {size_bytes});
  }
  void write(std::size_t stream, std::string_view name, const Tensor& tensor) {
    streams_[stream]->launch({.label = {name}, .kind = "test", .reads = {}, .writes = {&tensor, 1}}, {});
  }
  void read(std::size_t stream, std::string_view name, const Tensor& tensor) {
    streams_[stream]->launch({.label = {name}, .kind = "test", .reads = {&tensor, 1}, .writes = {}}, {});
  }
  void record(std::size_t stream, Event& event) { streams_[stream]->record(event); }
  void wait(std::size_t stream, const Event& event) {
    streams_[stream]->wait(event, {"test", Hazard::kReadAfterWrite});
  }
  Event event() { return device_.make_event("event"); }

  // "RAW reader after writer" for each report, in order.
  std::vector<std::string> reports() {
    std::vector<std::string> out;
    for (const auto& report : device_.checker().reports()) {
      const std::string hazard = report.write_after_write ? "WAW" : std::string(name_of(report.hazard));
      out.push_back(hazard + " " + report.operation + " after " + report.earlier_operation);
    }
    return out;
  }
  using Reports = std::vector<std::string>;

  PlanDevice plan_;
  CheckedDevice device_{plan_, CheckedDevice::Policy::kCollect};
  std::array<std::unique_ptr<Stream>, 3> streams_{device_.make_stream("compute", StreamPriority::kNormal),
                                                  device_.make_stream("comm", StreamPriority::kHigh),
                                                  device_.make_stream("copy", StreamPriority::kNormal)};
  Arena arena_{"gradients", MemoryKind::kDevice};
  Arena other_arena_{"weights", MemoryKind::kDevice};
  Tensor x_ = bytes(arena_, 0, 256);
};

TEST_F(OrderCheckerTest, StreamOrderCoversEveryHazard) {
  for (std::size_t stream : {kCompute, kComm}) {
    const Tensor mine = bytes(stream == kCompute ? arena_ : other_arena_, 0, 256);
    write(stream, "a", mine);
    read(stream, "b", mine);
    write(stream, "c", mine);
    write(stream, "d", mine);
  }
  EXPECT_EQ(reports(), Reports{});
  EXPECT_EQ(device_.checker().operations_checked(), 8);
}

TEST_F(OrderCheckerTest, ReportsReadAfterWrite) {
  write(kCompute, "writer", x_);
  read(kComm, "reader", x_);
  EXPECT_EQ(reports(), Reports{"RAW reader after writer"});
}

TEST_F(OrderCheckerTest, ReportsWriteAfterRead) {
  read(kCompute, "reader", x_);
  write(kComm, "writer", x_);
  EXPECT_EQ(reports(), Reports{"WAR writer after reader"});
}

TEST_F(OrderCheckerTest, ReportsWriteAfterWrite) {
  write(kCompute, "first", x_);
  write(kComm, "second", x_);
  EXPECT_EQ(reports(), Reports{"WAW second after first"});
}

TEST_F(OrderCheckerTest, ReadsNeedNoOrder) {
  for (std::size_t stream : {kCompute, kComm, kCopy}) read(stream, "reader", x_);
  EXPECT_EQ(reports(), Reports{});
}

TEST_F(OrderCheckerTest, InPlaceOperationIsBothReaderAndWriter) {
  streams_[kCompute]->launch({.label = {"first"}, .kind = "test", .reads = {&x_, 1}, .writes = {&x_, 1}}, {});
  streams_[kComm]->launch({.label = {"second"}, .kind = "test", .reads = {&x_, 1}, .writes = {&x_, 1}}, {});
  EXPECT_EQ(reports(), (Reports{"RAW second after first", "WAW second after first"}));
}

// One operation that wrote some bytes and read others: each of its hazards is a finding of its own.
TEST_F(OrderCheckerTest, WriteAfterReadAndWriteAfterWriteAreToldApart) {
  const Tensor low = bytes(arena_, 0, 128), high = bytes(arena_, 128, 128);
  streams_[kCompute]->launch({.label = {"first"}, .kind = "test", .reads = {&low, 1}, .writes = {&high, 1}}, {});
  write(kComm, "second", x_);
  EXPECT_EQ(reports(), (Reports{"WAR second after first", "WAW second after first"}));
}

TEST_F(OrderCheckerTest, EventCoversEveryHazard) {
  Event done = event(), read_done = event(), rewritten = event();
  write(kCompute, "writer", x_);
  record(kCompute, done);
  wait(kComm, done);
  read(kComm, "reader", x_);
  record(kComm, read_done);
  wait(kCopy, read_done);
  write(kCopy, "rewriter", x_);  // after the read, and by way of it after the first write
  record(kCopy, rewritten);
  wait(kCompute, rewritten);
  write(kCompute, "writer again", x_);
  EXPECT_EQ(reports(), Reports{});
}

TEST_F(OrderCheckerTest, EventCoversOnlyWhatWasEnqueuedBeforeItsRecord) {
  Event early = event();
  record(kCompute, early);
  write(kCompute, "writer", x_);
  wait(kComm, early);
  read(kComm, "reader", x_);
  EXPECT_EQ(reports(), Reports{"RAW reader after writer"});
}

TEST_F(OrderCheckerTest, WaitCoversOnlyWhatIsEnqueuedAfterIt) {
  Event done = event();
  write(kCompute, "writer", x_);
  record(kCompute, done);
  read(kComm, "early reader", x_);
  wait(kComm, done);
  read(kComm, "late reader", x_);
  EXPECT_EQ(reports(), Reports{"RAW early reader after writer"});
}

TEST_F(OrderCheckerTest, WaitForTheOtherDirectionCoversNothing) {
  Event reader_stream = event();
  write(kCompute, "writer", x_);
  record(kComm, reader_stream);
  wait(kComm, reader_stream);
  wait(kCompute, reader_stream);
  read(kComm, "reader", x_);
  EXPECT_EQ(reports(), Reports{"RAW reader after writer"});
}

TEST_F(OrderCheckerTest, EventsAreTransitive) {
  Event first = event(), second = event();
  write(kCompute, "writer", x_);
  record(kCompute, first);
  wait(kComm, first);
  record(kComm, second);  // comm runs no operation between
  wait(kCopy, second);
  read(kCopy, "reader", x_);
  EXPECT_EQ(reports(), Reports{});
}

TEST_F(OrderCheckerTest, WaitBindsToTheLatestRecordBefore) {
  Event event_a = event();
  record(kCompute, event_a);
  write(kCompute, "first", x_);
  record(kCompute, event_a);  // rebound: covers the write
  wait(kComm, event_a);
  read(kComm, "covered reader", x_);
  EXPECT_EQ(reports(), Reports{});

  const Tensor y = bytes(other_arena_, 0, 256);
  wait(kCopy, event_a);
  write(kCompute, "second", y);
  record(kCompute, event_a);  // after the wait: does not help it
  read(kCopy, "uncovered reader", y);
  EXPECT_EQ(reports(), Reports{"RAW uncovered reader after second"});
}

TEST_F(OrderCheckerTest, EventRecordedByAnotherStreamLosesTheFirst) {
  Event shared = event();
  write(kCompute, "writer", x_);
  record(kCompute, shared);
  record(kCopy, shared);
  wait(kComm, shared);
  read(kComm, "reader", x_);
  EXPECT_EQ(reports(), Reports{"RAW reader after writer"});
}

TEST_F(OrderCheckerTest, EventNeverRecordedCoversNothing) {
  const Event never = event();
  write(kCompute, "writer", x_);
  wait(kComm, never);
  read(kComm, "reader", x_);
  EXPECT_EQ(reports(), Reports{"RAW reader after writer"});
}

TEST_F(OrderCheckerTest, HostSynchronisationOrdersWhatIsEnqueuedLater) {
  write(kCompute, "a", x_);
  streams_[kCompute]->synchronize();
  read(kComm, "b", x_);
  EXPECT_EQ(reports(), Reports{});

  Event done = event();
  const Tensor y = bytes(other_arena_, 0, 256);
  write(kCompute, "c", y);
  record(kCompute, done);
  write(kCompute, "d", x_.flat(0, 0));  // an empty range is no access
  device_.synchronize(done);
  write(kCopy, "e", y);
  EXPECT_EQ(reports(), Reports{});

  write(kCompute, "f", bytes(arena_, 0, 8));  // not behind the event, and "b" is not before it
  EXPECT_EQ(reports(), Reports{"WAR f after b"});
}

TEST_F(OrderCheckerTest, AStreamThatIsGoneHasDoneWhatItHad) {
  write(kCompute, "writer", x_);
  streams_[kCompute].reset();
  read(kComm, "reader", x_);
  EXPECT_EQ(reports(), Reports{});
}

TEST_F(OrderCheckerTest, LookingAtAnEventOrdersNothing) {
  Event done = event();
  write(kCompute, "writer", x_);
  record(kCompute, done);
  ASSERT_TRUE(device_.complete(done));
  device_.host_wait(device_.ticket(done));  // of another host thread
  read(kComm, "reader", x_);
  EXPECT_EQ(reports(), Reports{"RAW reader after writer"});
}

TEST_F(OrderCheckerTest, AMarkOrdersNothing) {
  Mark written = device_.make_mark("written"), about_to_read = device_.make_mark("about to read");
  write(kCompute, "writer", x_);
  streams_[kCompute]->mark(written);
  ASSERT_TRUE(device_.complete(written));
  streams_[kComm]->mark(about_to_read);
  device_.elapsed(written, about_to_read);
  read(kComm, "reader", x_);
  EXPECT_EQ(reports(), Reports{"RAW reader after writer"});
}

TEST_F(OrderCheckerTest, WriteMustComeAfterAllReadsSinceTheLastWrite) {
  Event seen_by_comm = event(), seen_by_copy = event();
  read(kComm, "comm reader", x_);
  record(kComm, seen_by_comm);
  read(kCopy, "copy reader", x_);
  record(kCopy, seen_by_copy);
  wait(kCompute, seen_by_copy);
  write(kCompute, "half covered", x_);
  EXPECT_EQ(reports(), Reports{"WAR half covered after comm reader"});
  wait(kCompute, seen_by_comm);
  write(kCompute, "covered", x_);
  EXPECT_EQ(reports().size(), 1u);
}

TEST_F(OrderCheckerTest, ComparesBytesNotTensors) {
  write(kCompute, "writer", bytes(arena_, 100, 10));
  read(kComm, "below", bytes(arena_, 0, 100));
  read(kComm, "above", bytes(arena_, 110, 100));
  read(kComm, "other arena", bytes(other_arena_, 100, 10));
  EXPECT_EQ(reports(), Reports{});
  read(kComm, "first byte", bytes(arena_, 90, 11));
  read(kComm, "last byte", bytes(arena_, 109, 50));
  read(kComm, "inside", bytes(arena_, 104, 1));
  read(kComm, "around", x_);
  EXPECT_EQ(reports(), (Reports{"RAW first byte after writer", "RAW last byte after writer", "RAW inside after writer",
                                "RAW around after writer"}));
}

TEST_F(OrderCheckerTest, SeesAliasesOfAnotherShapeAndType) {
  const Tensor matrix(arena_, 0, DType::kF32, {8, 8});
  write(kCompute, "writer", matrix.slice(0, 4, 1));  // bytes 128 to 160
  read(kComm, "other rows", matrix.slice(0, 0, 4));
  EXPECT_EQ(reports(), Reports{});
  read(kComm, "as bf16", Tensor(arena_, 0, DType::kBF16, {128}).flat(70, 1));
  read(kComm, "column", matrix.slice(1, 7, 1));  // strided: its extent covers all rows
  EXPECT_EQ(reports(), (Reports{"RAW as bf16 after writer", "RAW column after writer"}));
}

TEST_F(OrderCheckerTest, PartsOfARangeKeepTheirOwnHistory) {
  Event upper = event();
  write(kCompute, "lower half", bytes(arena_, 0, 128));
  write(kCopy, "upper half", bytes(arena_, 128, 128));
  record(kCopy, upper);
  wait(kComm, upper);
  read(kComm, "whole", x_);
  EXPECT_EQ(reports(), Reports{"RAW whole after lower half"});
}

TEST_F(OrderCheckerTest, UndefinedTensorsAreSkipped) {
  write(kCompute, "a", Tensor());
  read(kComm, "b", Tensor());
  EXPECT_EQ(reports(), Reports{});
}

TEST_F(OrderCheckerTest, RepeatedFindingIsReportedOnce) {
  for (int step = 0; step < 5; ++step) {
    write(kCompute, "writer", x_);
    streams_[kCopy]->synchronize();
    read(kComm, "reader", x_);
    streams_[kComm]->synchronize();
  }
  EXPECT_EQ(reports(), Reports{"RAW reader after writer"});
}

TEST_F(OrderCheckerTest, ReportNamesBothOperationsStreamsAndArena) {
  write(kComm, "bucket 0 all-reduce", bytes(arena_, 0, 256));
  read(kCompute, "adamw", bytes(arena_, 64, 32));
  ASSERT_EQ(device_.checker().reports().size(), 1u);
  EXPECT_EQ(
      device_.checker().reports()[0].describe(),
      "RAW: 'adamw' on stream compute is not ordered after 'bucket 0 all-reduce' on stream comm (arena gradients, "
      "bytes 64-96)");
}

TEST(CheckedDeviceTest, ThrowPolicyRefusesTheOperation) {
  PlanDevice plan;
  CheckedDevice device(plan, CheckedDevice::Policy::kThrow);
  const auto a = device.make_stream("a", StreamPriority::kNormal), b = device.make_stream("b", StreamPriority::kNormal);
  Arena arena("weights", MemoryKind::kDevice);
  const Tensor x = Tensor::reserve(arena, DType::kF32, {4});
  a->zero({"init"}, x);
  try {
    b->zero({"init again"}, x);
    ADD_FAILURE() << "no error";
  } catch (const DeviceError& error) {
    EXPECT_STREQ(error.what(),
                 "order check: WAW: 'init again' on stream b is not ordered after 'init' on stream a (arena weights, "
                 "bytes 0-16). This is a bug in the schedule");
  }
  EXPECT_EQ(plan.recording().entries.size(), 1u);
  EXPECT_THROW(device.enforce(), DeviceError);
}

// Random programs, judged by brute force: happens-before as the transitive closure of a graph over all calls,
// every pair of operations compared byte by byte.
class BruteForce {
 public:
  static constexpr std::size_t kMaxCalls = 256;

  struct Range {
    int arena;
    std::size_t begin, end;
    bool overlaps(const Range& other) const { return arena == other.arena && begin < other.end && other.begin < end; }
  };
  struct Call {
    std::bitset<kMaxCalls> after;  // every call that has surely run before this one
    std::vector<Range> reads, writes;
  };

  explicit BruteForce(std::size_t streams, std::size_t events)
      : last_of_stream_(streams, kNone), record_of_(events, kNone) {}

  std::size_t launch(std::size_t stream, std::vector<Range> reads, std::vector<Range> writes) {
    const std::size_t call = append(stream);
    calls_[call].reads = std::move(reads);
    calls_[call].writes = std::move(writes);
    return call;
  }
  void record(std::size_t stream, std::size_t event) { record_of_[event] = append(stream); }
  void wait(std::size_t stream, std::size_t event) {
    const std::size_t call = append(stream);
    if (record_of_[event] != kNone) add_edge(record_of_[event], call);
  }
  void synchronize_stream(std::size_t stream) { host_knows(last_of_stream_[stream]); }
  void synchronize_event(std::size_t event) { host_knows(record_of_[event]); }

  const std::vector<Call>& calls() const { return calls_; }
  bool ordered(std::size_t earlier, std::size_t later) const { return calls_[later].after[earlier]; }

 private:
  static constexpr std::size_t kNone = SIZE_MAX;

  std::size_t append(std::size_t stream) {
    const std::size_t call = calls_.size();
    calls_.push_back({host_, {}, {}});
    if (last_of_stream_[stream] != kNone) add_edge(last_of_stream_[stream], call);
    last_of_stream_[stream] = call;
    return call;
  }
  void add_edge(std::size_t from, std::size_t to) {
    calls_[to].after |= calls_[from].after;
    calls_[to].after.set(from);
  }
  void host_knows(std::size_t call) {
    if (call == kNone) return;
    host_ |= calls_[call].after;
    host_.set(call);
  }

  std::vector<Call> calls_;
  std::vector<std::size_t> last_of_stream_, record_of_;
  std::bitset<kMaxCalls> host_;
};

TEST(OrderCheckerProperty, AgreesWithBruteForceOnRandomPrograms) {
  constexpr std::size_t kStreams = 3, kEvents = 4, kArenaBytes = 24;
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&random](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
  std::size_t clean_programs = 0, racy_programs = 0;

  for (int program = 0; program < 1500; ++program) {
    PlanDevice plan;
    CheckedDevice device(plan, CheckedDevice::Policy::kCollect);
    const std::array<Arena, 2> arenas{Arena("0", MemoryKind::kDevice), Arena("1", MemoryKind::kDevice)};
    std::vector<std::unique_ptr<Stream>> streams;
    std::vector<Event> events;
    for (std::size_t i = 0; i < kStreams; ++i) streams.push_back(device.make_stream("s", StreamPriority::kNormal));
    for (std::size_t i = 0; i < kEvents; ++i) events.push_back(device.make_event("e"));
    BruteForce oracle(kStreams, kEvents);

    const auto ranges = [&](std::size_t most) {
      std::vector<BruteForce::Range> out;
      for (std::size_t left = below(most + 1); left > 0; --left) {
        const std::size_t begin = below(kArenaBytes);
        out.push_back(
            {static_cast<int>(below(2)), begin, begin + 1 + below(std::min<std::size_t>(8, kArenaBytes - begin))});
      }
      return out;
    };
    const auto tensors = [&](const std::vector<BruteForce::Range>& of) {
      std::vector<Tensor> out;
      for (const auto& range : of) {
        out.emplace_back(arenas[static_cast<std::size_t>(range.arena)], range.begin, DType::kU8,
                         std::initializer_list<std::int64_t>{static_cast<std::int64_t>(range.end - range.begin)});
      }
      return out;
    };

    std::set<std::tuple<std::size_t, std::size_t, std::string>> unordered;  // later, earlier, hazard
    std::set<std::size_t> must_report;  // operations whose bytes have an unordered last write or read since
    struct Byte {
      std::vector<std::size_t> last_write, reads_since;
    };
    std::array<std::array<Byte, kArenaBytes>, 2> memory;
    const std::size_t length = 4 + below(60), waits_of_ten = below(8);
    for (std::size_t call = 0; call < length; ++call) {
      const std::size_t s = below(kStreams), e = below(kEvents), choice = below(20);
      if (choice == 0) {
        streams[s]->synchronize();
        oracle.synchronize_stream(s);
      } else if (choice == 1) {
        device.synchronize(events[e]);
        oracle.synchronize_event(e);
      } else if (below(10) < waits_of_ten) {
        if (below(2) == 0) {
          streams[s]->record(events[e]);
          oracle.record(s, e);
        } else {
          streams[s]->wait(events[e], {"random", Hazard::kReadAfterWrite});
          oracle.wait(s, e);
        }
      } else {
        const auto reads = ranges(2), writes = ranges(2);
        const auto read_tensors = tensors(reads), write_tensors = tensors(writes);
        const std::size_t now = oracle.launch(s, reads, writes);
        const std::string name = std::to_string(now);
        streams[s]->launch({.label = {name}, .kind = "random", .reads = read_tensors, .writes = write_tensors}, {});

        for (std::size_t earlier = 0; earlier < now; ++earlier) {
          if (oracle.ordered(earlier, now)) continue;
          const auto conflict = [&](const auto& mine, const auto& theirs, const char* hazard) {
            for (const auto& a : mine) {
              for (const auto& b : theirs) {
                if (a.overlaps(b)) unordered.emplace(now, earlier, hazard);
              }
            }
          };
          conflict(reads, oracle.calls()[earlier].writes, "RAW");
          conflict(writes, oracle.calls()[earlier].reads, "WAR");
          conflict(writes, oracle.calls()[earlier].writes, "WAW");
        }
        const auto each_byte = [&](const auto& of, auto visit) {
          for (const auto& range : of) {
            for (std::size_t at = range.begin; at < range.end; ++at)
              visit(memory[static_cast<std::size_t>(range.arena)][at]);
          }
        };
        const auto check = [&](const std::vector<std::size_t>& accesses) {
          for (const std::size_t earlier : accesses) {
            if (earlier != now && !oracle.ordered(earlier, now)) must_report.insert(now);
          }
        };
        each_byte(reads, [&](Byte& byte) {
          check(byte.last_write);
          byte.reads_since.push_back(now);
        });
        each_byte(writes, [&](Byte& byte) {
          check(byte.last_write);
          check(byte.reads_since);
          byte = {{now}, {}};
        });
      }
    }

    std::set<std::size_t> reported;
    for (const auto& report : device.checker().reports()) {
      const std::size_t later = std::stoul(report.operation), earlier = std::stoul(report.earlier_operation);
      const std::string hazard = report.write_after_write ? "WAW" : std::string(name_of(report.hazard));
      EXPECT_TRUE(unordered.contains({later, earlier, hazard})) << "false report: " << report.describe();
      reported.insert(later);
    }
    EXPECT_EQ(reported, must_report);
    EXPECT_EQ(must_report.empty(), unordered.empty());  // looking at the latest accesses only loses no race
    ++(unordered.empty() ? clean_programs : racy_programs);
    ASSERT_FALSE(HasFailure()) << "program " << program;
  }
  EXPECT_GT(clean_programs, 50u);
  EXPECT_GT(racy_programs, 50u);
}

}  // namespace
}  // namespace strake::test
