// The contract of Communicator and Control as tests, for every backend. A backend's test program includes this
// file and instantiates the suite with a value for each world it can make:
//
//   INSTANTIATE_TEST_SUITE_P(Threads, CommunicatorContract, testing::Values(...), name_of_backend);
//
// Every test runs on every rank. Under mpirun each process runs the same tests in the same order.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "comm/control.h"
#include "comm/registered_memory.h"
#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/order_checker.h"
#include "runtime/device/recording.h"
#include "tests/comm/expected_declarations.h"
#include "tests/support/stream_gate.h"
#include "tests/support/watchdog.h"

namespace strake::comm {

// A rank's device, whose memory the host sets and reads while no collective uses it, and gates for its streams.
class Machine {
 public:
  virtual ~Machine() = default;
  virtual Device& device() = 0;
  virtual void write(const Tensor& to, const void* from) = 0;
  virtual void read(void* to, const Tensor& from) = 0;
  virtual std::unique_ptr<test::StreamGate> make_gate() = 0;
};

class CpuMachine final : public Machine {
 public:
  Device& device() override { return *cpu_; }
  void write(const Tensor& to, const void* from) override { std::memcpy(cpu::bytes(to), from, to.extent_bytes()); }
  void read(void* to, const Tensor& from) override { std::memcpy(to, cpu::bytes(from), from.extent_bytes()); }
  std::unique_ptr<test::StreamGate> make_gate() override { return std::make_unique<test::CpuGate>(); }

 private:
  std::unique_ptr<Device> cpu_ = make_cpu_device();
};

// What a rank of the world under test can make.
struct RankWorld {
  int rank = 0;
  int size = 1;
  // `device`: of this rank, outlives the communicator.
  std::function<std::unique_ptr<Communicator>(Device& device)> make_communicator;
  std::function<std::unique_ptr<Control>()> make_control;
  std::function<std::unique_ptr<Machine>()> make_machine = [] { return std::make_unique<CpuMachine>(); };
};

struct Backend {
  std::string name;
  // Runs a function as every rank that lives in this process.
  std::function<void(const std::function<void(RankWorld&)>&)> run;
  // Why this machine cannot run it; empty: it can.
  std::function<std::string()> unavailable = [] { return std::string(); };
  // What the backend leaves to its caller: to enqueue on several communicators in one order on all ranks, and to agree
  // on sizes.
  bool any_order = true;
  bool compares_sizes = true;
};

inline std::string name_of_backend(const testing::TestParamInfo<Backend>& info) { return info.param.name; }

// A rank under the order checker, with one communication stream, a communicator, and tensors whose values the host sets
// and reads while the streams are idle.
class Rank {
 public:
  explicit Rank(RankWorld& world)
      : machine_(world.make_machine()),
        device_(machine_->device(), CheckedDevice::Policy::kCollect),
        communicator(world.make_communicator(machine_->device())),
        registered_(*communicator),
        stream(device_.make_stream("comm", StreamPriority::kHigh)) {}
  ~Rank() {
    for (const OrderChecker::Report& report : device_.checker().reports()) ADD_FAILURE() << report.describe();
  }

  int rank() const { return communicator->rank(); }
  int size() const { return communicator->size(); }
  CheckedDevice& device() { return device_; }
  std::unique_ptr<Communicator> make_communicator(RankWorld& world) {
    return world.make_communicator(machine_->device());
  }
  // Until what is enqueued has run; throws what went wrong.
  void finish() {
    stream->synchronize();
    communicator->check();
  }
  test::StreamGate& make_gate() { return *gates_.emplace_back(machine_->make_gate()); }

  // Registered, as memory of a run is: REQUIRES: every rank makes as many, with or without values.
  template <typename T>
  Tensor tensor(const std::vector<T>& values) {
    Arena& arena = *arenas_.emplace_back(std::make_unique<Arena>("tensor", MemoryKind::kDevice));
    Tensor out = Tensor::reserve(arena, dtype_of<T>, {static_cast<std::int64_t>(values.size())});
    arena.allocate(device_);
    registered_.add(arena);
    if (!values.empty()) machine_->write(out, values.data());
    return out;
  }
  template <typename T>
  std::vector<T> values(const Tensor& tensor) {
    std::vector<T> out(static_cast<std::size_t>(tensor.elems()));
    if (!out.empty()) machine_->read(out.data(), tensor);
    return out;
  }

 private:
  std::unique_ptr<Machine> machine_;
  CheckedDevice device_;
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::vector<std::unique_ptr<test::StreamGate>> gates_;

 public:
  std::unique_ptr<Communicator> communicator;

 private:
  RegisteredMemory registered_;

 public:
  std::unique_ptr<Stream> stream;  // drains before anything else goes
};

// 64 bits that depend on nothing but the arguments.
inline std::uint64_t hash_of(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9e3779b97f4a7c15u + b + 1;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

inline void set(float value, float& out) { out = value; }
inline void set(float value, double& out) { out = static_cast<double>(value) * (1 + std::ldexp(1.0, -40)); }
inline void set(float value, BFloat16& out) { out = to_bfloat16(value); }

// Values of different magnitudes and both signs, and in every fourth place a small one between two large ones
// that cancel: another order of adding gives other bits, after rounding to bf16 too.
template <typename T>
std::vector<T> addends(int rank, std::size_t elems) {
  std::vector<T> values(elems);
  for (std::size_t i = 0; i < elems; ++i) {
    const std::uint64_t bits = hash_of(static_cast<std::uint64_t>(rank) + 17, i);
    const float small = std::ldexp(1 + static_cast<float>(bits & 0xffff) / 65536, static_cast<int>((bits >> 16) % 12));
    const float large = std::ldexp(1.0f, 70);
    const auto role = i % 4 == 0 ? (static_cast<std::uint64_t>(rank) + i / 4) % 3 : 0;
    set(role == 1 ? large : role == 2 ? -large : (bits >> 32) % 2 == 0 ? small : -small, values[i]);
  }
  return values;
}

// The promised sum, written out: rank by rank, each rank's vector in turn.
template <typename T>
std::vector<T> serial_sum(int size, std::size_t elems, bool backwards = false) {
  const auto addends_of = [&](int step) { return addends<T>(backwards ? size - 1 - step : step, elems); };
  if constexpr (std::is_same_v<T, BFloat16>) {
    std::vector<float> sum(elems);
    for (int step = 0; step < size; ++step) {
      const std::vector<T> next = addends_of(step);
      for (std::size_t i = 0; i < elems; ++i) sum[i] = step == 0 ? to_float(next[i]) : sum[i] + to_float(next[i]);
    }
    std::vector<T> rounded(elems);
    for (std::size_t i = 0; i < elems; ++i) rounded[i] = to_bfloat16(sum[i]);
    return rounded;
  } else {
    std::vector<T> sum = addends_of(0);
    for (int step = 1; step < size; ++step) {
      const std::vector<T> next = addends_of(step);
      for (std::size_t i = 0; i < elems; ++i) sum[i] += next[i];
    }
    return sum;
  }
}

template <typename T>
bool equal_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Any values, of any type.
template <typename T>
std::vector<T> values_of(std::uint64_t seed, std::size_t elems) {
  std::vector<T> values(elems);
  for (std::size_t i = 0; i < elems; ++i) {
    const std::uint64_t bits = hash_of(seed, i);
    std::memcpy(static_cast<void*>(&values[i]), &bits, sizeof(T));
  }
  return values;
}

template <typename Function>
void for_each_reducible(Function function) {
  function(float{});
  function(double{});
  function(BFloat16{});
}

template <typename Function>
void for_each_dtype(Function function) {
  for_each_reducible(function);
  function(std::int32_t{});
  function(std::uint8_t{});
  function(std::int64_t{});
}

// The longest, of several rounds of an exchange, for one type only: sanitizers run this too.
template <typename T>
std::vector<std::size_t> odd_sizes() {
  std::vector<std::size_t> sizes{0, 1, 3, 4097};
  if (std::is_same_v<T, float>) sizes.push_back(1000003);
  return sizes;
}

class CommunicatorContract : public testing::TestWithParam<Backend> {
 protected:
  void on_every_rank(const std::function<void(RankWorld&)>& rank_main) { GetParam().run(rank_main); }

 private:
  void SetUp() override {
    if (const std::string reason = GetParam().unavailable(); !reason.empty()) GTEST_SKIP() << reason;
  }

  test::Watchdog watchdog_{testing::UnitTest::GetInstance()->current_test_info()->name()};
};

// Backends that cannot make a world (mpirun with one process) still run every test with a group of one.
TEST_P(CommunicatorContract, AllReduceSumsInRankOrder) {
  on_every_rank([](RankWorld& world) {
    Rank rank(world);
    for_each_reducible([&]<typename T>(T) {
      for (const std::size_t elems : odd_sizes<T>()) {
        const Tensor data = rank.tensor(addends<T>(rank.rank(), elems));
        rank.communicator->all_reduce(*rank.stream, {"sum", Phase::kComm}, data);
        rank.stream->synchronize();
        EXPECT_TRUE(equal_bits(rank.values<T>(data), serial_sum<T>(rank.size(), elems)))
            << name_of(dtype_of<T>) << " x " << elems << " on rank " << rank.rank();
      }
      // Else this test would not see another order.
      if (rank.size() > 2) {
        EXPECT_FALSE(equal_bits(serial_sum<T>(rank.size(), 4097), serial_sum<T>(rank.size(), 4097, true)));
      }
    });
  });
}

TEST_P(CommunicatorContract, AllReduceGivesTheSameBitsInAnyRanges) {
  constexpr std::size_t kElems = 100003;
  constexpr std::uint64_t kSeed = 20240611;
  RecordProperty("seed", std::to_string(kSeed));
  on_every_rank([&](RankWorld& world) {
    Rank rank(world);
    for_each_reducible([&]<typename T>(T) {
      const std::vector<T> mine = addends<T>(rank.rank(), kElems);
      const std::vector<T> expected = serial_sum<T>(rank.size(), kElems);
      for (const std::int64_t longest : {37, 5000, 70000}) {
        std::mt19937_64 random(kSeed);  // the same cuts on every rank
        const Tensor arena = rank.tensor(mine);
        const auto elems = longest == 37 ? std::int64_t{3001} : arena.elems();
        for (std::int64_t begin = 0; begin < elems;) {
          const std::int64_t length =
              std::min(elems - begin, std::uniform_int_distribution<std::int64_t>(1, longest)(random));
          rank.communicator->all_reduce(*rank.stream, {"range", Phase::kComm}, arena.flat(begin, length));
          begin += length;
        }
        rank.stream->synchronize();
        const auto part = static_cast<std::ptrdiff_t>(elems);
        const std::vector<T> sums = rank.values<T>(arena);
        EXPECT_TRUE(equal_bits(std::vector<T>(sums.begin(), sums.begin() + part),
                               std::vector<T>(expected.begin(), expected.begin() + part)))
            << name_of(dtype_of<T>) << " in ranges of up to " << longest << ", seed " << kSeed;
        EXPECT_TRUE(equal_bits(std::vector<T>(sums.begin() + part, sums.end()),
                               std::vector<T>(mine.begin() + part, mine.end())))
            << "elements outside the ranges were touched";
      }
    });
  });
}

TEST_P(CommunicatorContract, ReduceScatterKeepsOwnPiece) {
  on_every_rank([](RankWorld& world) {
    Rank rank(world);
    for_each_reducible([&]<typename T>(T) {
      for (const std::size_t elems : odd_sizes<T>()) {
        const std::size_t all = elems * static_cast<std::size_t>(rank.size());
        const std::vector<T> mine = addends<T>(rank.rank(), all);
        const std::vector<T> sums = serial_sum<T>(rank.size(), all);
        const auto begin = static_cast<std::ptrdiff_t>(elems) * rank.rank();
        const std::vector<T> expected(sums.begin() + begin, sums.begin() + begin + static_cast<std::ptrdiff_t>(elems));

        const Tensor in = rank.tensor(mine);
        const Tensor out = rank.tensor(std::vector<T>(elems));
        rank.communicator->reduce_scatter(*rank.stream, {"piece", Phase::kComm}, out, in);
        rank.stream->synchronize();
        EXPECT_TRUE(equal_bits(rank.values<T>(out), expected)) << name_of(dtype_of<T>) << " x " << elems;
        EXPECT_TRUE(equal_bits(rank.values<T>(in), mine)) << "the input was changed";

        const Tensor piece = in.flat(begin, static_cast<std::int64_t>(elems));
        rank.communicator->reduce_scatter(*rank.stream, {"piece in place", Phase::kComm}, piece, in);
        rank.stream->synchronize();
        EXPECT_TRUE(equal_bits(rank.values<T>(piece), expected))
            << "in place, " << name_of(dtype_of<T>) << " x " << elems;
      }
    });
  });
}

TEST_P(CommunicatorContract, AllGatherLaysPiecesInRankOrder) {
  on_every_rank([](RankWorld& world) {
    Rank rank(world);
    for_each_dtype([&]<typename T>(T) {
      for (const std::size_t elems : odd_sizes<T>()) {
        std::vector<T> expected;
        for (int peer = 0; peer < rank.size(); ++peer) {
          const std::vector<T> piece = values_of<T>(static_cast<std::uint64_t>(peer), elems);
          expected.insert(expected.end(), piece.begin(), piece.end());
        }
        const std::vector<T> mine = values_of<T>(static_cast<std::uint64_t>(rank.rank()), elems);
        const Tensor in = rank.tensor(mine);
        const Tensor out = rank.tensor(std::vector<T>(expected.size()));
        rank.communicator->all_gather(*rank.stream, {"gather", Phase::kComm}, out, in);
        rank.stream->synchronize();
        EXPECT_TRUE(equal_bits(rank.values<T>(out), expected)) << name_of(dtype_of<T>) << " x " << elems;
        EXPECT_TRUE(equal_bits(rank.values<T>(in), mine)) << "the input was changed";

        std::vector<T> only_mine(expected.size());
        std::copy(mine.begin(), mine.end(), only_mine.begin() + static_cast<std::ptrdiff_t>(elems) * rank.rank());
        const Tensor whole = rank.tensor(only_mine);
        const auto piece_elems = static_cast<std::int64_t>(elems);
        rank.communicator->all_gather(*rank.stream, {"gather in place", Phase::kComm}, whole,
                                      whole.flat(rank.rank() * piece_elems, piece_elems));
        rank.stream->synchronize();
        EXPECT_TRUE(equal_bits(rank.values<T>(whole), expected))
            << "in place, " << name_of(dtype_of<T>) << " x " << elems;
      }
    });
  });
}

TEST_P(CommunicatorContract, BroadcastFromEveryRoot) {
  on_every_rank([](RankWorld& world) {
    Rank rank(world);
    for_each_dtype([&]<typename T>(T) {
      for (const std::size_t elems : odd_sizes<T>()) {
        for (int root = 0; root < rank.size(); ++root) {
          if (elems > 4097 && root != rank.size() - 1) continue;  // one large one is enough
          const Tensor data = rank.tensor(values_of<T>(static_cast<std::uint64_t>(rank.rank()), elems));
          rank.communicator->broadcast(*rank.stream, {"broadcast", Phase::kComm}, data, root);
          rank.stream->synchronize();
          EXPECT_TRUE(equal_bits(rank.values<T>(data), values_of<T>(static_cast<std::uint64_t>(root), elems)))
              << name_of(dtype_of<T>) << " x " << elems << " from " << root;
        }
      }
    });
  });
}

TEST_P(CommunicatorContract, AllToAllWithUnevenAndZeroCounts) {
  // Elements from rank `from` to rank `to`; some pairs exchange nothing, one rank may send nothing at all.
  const auto sent = [](int scale, int from, int to) -> std::int64_t {
    if (from == 2 || (from + to) % 3 == 1) return 0;
    return scale * (5 * from + 3 * to + 1);
  };
  on_every_rank([&](RankWorld& world) {
    Rank rank(world);
    for_each_dtype([&]<typename T>(T) {
      for (const int scale : {0, 1, 2011}) {
        // What `from` lays down for everybody; the part for `to` begins behind those for lower ranks.
        const auto laid_down = [&](int from) {
          std::size_t elems = 0;
          for (int to = 0; to < rank.size(); ++to) elems += static_cast<std::size_t>(sent(scale, from, to));
          return values_of<T>(static_cast<std::uint64_t>(from) + 100, elems);
        };
        std::vector<std::int64_t> send_elems, recv_elems;
        std::vector<T> expected;
        for (int peer = 0; peer < rank.size(); ++peer) {
          send_elems.push_back(sent(scale, rank.rank(), peer));
          recv_elems.push_back(sent(scale, peer, rank.rank()));
          std::int64_t begin = 0;
          for (int to = 0; to < rank.rank(); ++to) begin += sent(scale, peer, to);
          const std::vector<T> theirs = laid_down(peer);
          expected.insert(expected.end(), theirs.begin() + begin, theirs.begin() + begin + recv_elems.back());
        }
        // Both tensors are longer than what is exchanged; the rest is left alone.
        std::vector<T> from = laid_down(rank.rank());
        from.resize(from.size() + 7);
        const std::vector<T> rest = values_of<T>(7, 11);
        std::vector<T> to(expected.size());
        to.insert(to.end(), rest.begin(), rest.end());
        expected.insert(expected.end(), rest.begin(), rest.end());
        const Tensor in = rank.tensor(from);
        const Tensor out = rank.tensor(to);
        rank.communicator->all_to_all(*rank.stream, {"exchange", Phase::kComm}, out, recv_elems, in, send_elems);
        // Host data of the call: may be gone when it runs.
        recv_elems.assign(recv_elems.size(), -1);
        send_elems.assign(send_elems.size(), -1);
        rank.stream->synchronize();
        EXPECT_TRUE(equal_bits(rank.values<T>(out), expected)) << name_of(dtype_of<T>) << ", scale " << scale;
      }
    });
  });
}

TEST_P(CommunicatorContract, BarrierHoldsUntilTheLastRank) {
  on_every_rank([](RankWorld& world) {
    Rank rank(world);
    test::StreamGate& gate = rank.make_gate();
    const auto control = world.make_control();
    const bool last = rank.rank() == rank.size() - 1;
    Event passed = rank.device().make_event("passed");
    // A first collective may connect the ranks, on their hosts.
    rank.communicator->barrier(*rank.stream, {"connect", Phase::kComm});
    rank.stream->synchronize();
    if (last) rank.stream->launch({.label = {"hold"}, .kind = "gate", .reads = {}, .writes = {}}, gate.body());
    rank.communicator->barrier(*rank.stream, {"barrier", Phase::kComm});
    rank.stream->record(passed);
    control->barrier();
    EXPECT_FALSE(rank.device().complete(passed) && rank.size() > 1) << "rank " << rank.rank() << " did not wait";
    control->barrier();
    gate.open();
    rank.stream->synchronize();
    EXPECT_TRUE(rank.device().complete(passed));
  });
}

TEST_P(CommunicatorContract, EnqueueingDoesNotBlockTheHost) {
  on_every_rank([](RankWorld& world) {
    Rank rank(world);
    test::StreamGate& gate = rank.make_gate();
    const Tensor sums = rank.tensor(addends<float>(rank.rank(), 1000));
    // A first collective may connect the ranks, on their hosts.
    const Tensor others = rank.tensor(addends<float>(rank.rank(), 1000));
    rank.communicator->all_reduce(*rank.stream, {"connect", Phase::kComm}, others);
    rank.stream->synchronize();
    // Every rank's stream is held, so nothing can be exchanged; a host that waits never opens the gate.
    rank.stream->launch({.label = {"hold"}, .kind = "gate", .reads = {}, .writes = {}}, gate.body());
    rank.communicator->all_reduce(*rank.stream, {"sum", Phase::kComm}, sums);
    Event summed = rank.device().make_event("summed");
    rank.stream->record(summed);
    EXPECT_FALSE(rank.device().complete(summed));
    gate.open();
    rank.stream->synchronize();
    EXPECT_TRUE(equal_bits(rank.values<float>(sums), serial_sum<float>(rank.size(), 1000)));
  });
}

TEST_P(CommunicatorContract, ManyCollectivesInFlightKeepTheirOrder) {
  on_every_rank([](RankWorld& world) {
    Rank rank(world);
    // Each all-reduce multiplies by the number of ranks; the broadcasts in between hand on rank r's value.
    const Tensor data = rank.tensor(std::vector<double>{1.0 + rank.rank(), 3, -5});
    double expected = 1;
    for (int i = 0; i < 12; ++i) {
      const int root = i % rank.size();
      rank.communicator->broadcast(*rank.stream, {"broadcast", Phase::kComm}, data, root);
      rank.communicator->all_reduce(*rank.stream, {"sum", Phase::kComm}, data);
      expected *= rank.size();
    }
    rank.stream->synchronize();
    EXPECT_EQ(rank.values<double>(data), (std::vector<double>{expected, 3 * expected, -5 * expected}));
  });
}

TEST_P(CommunicatorContract, TwoCommunicatorsOnTwoStreams) {
  const bool any_order = GetParam().any_order;
  on_every_rank([any_order](RankWorld& world) {
    Rank rank(world);
    const auto other = rank.make_communicator(world);
    const auto other_stream = rank.device().make_stream("other", StreamPriority::kNormal);
    const std::size_t elems = 60013;
    std::vector<Tensor> sums, gathered;
    for (int i = 0; i < 10; ++i) {
      const Tensor sum = rank.tensor(addends<float>(rank.rank(), elems));
      const Tensor piece = rank.tensor(std::vector<std::int32_t>(elems, rank.rank() + i));
      const Tensor whole = rank.tensor(std::vector<std::int32_t>(elems * static_cast<std::size_t>(rank.size())));
      // Ranks enqueue on the two streams in different orders, where they may.
      for (int turn = 0; turn < 2; ++turn) {
        if (((any_order ? rank.rank() : 0) + turn) % 2 == 0) {
          rank.communicator->all_reduce(*rank.stream, {"sum", Phase::kComm}, sum);
        } else {
          other->all_gather(*other_stream, {"gather", Phase::kComm}, whole, piece);
        }
      }
      sums.push_back(sum);
      gathered.push_back(whole);
    }
    rank.stream->synchronize();
    other_stream->synchronize();
    for (int i = 0; i < 10; ++i) {
      const auto index = static_cast<std::size_t>(i);
      EXPECT_TRUE(equal_bits(rank.values<float>(sums[index]), serial_sum<float>(rank.size(), elems)));
      std::vector<std::int32_t> expected;
      for (int peer = 0; peer < rank.size(); ++peer) expected.insert(expected.end(), elems, peer + i);
      EXPECT_EQ(rank.values<std::int32_t>(gathered[index]), expected);
    }
  });
}

TEST_P(CommunicatorContract, SplitByColorOrderedByKey) {
  on_every_rank([](RankWorld& world) {
    Rank rank(world);
    const int me = rank.rank();
    // Even and odd ranks, each in reverse order.
    const auto part = rank.communicator->split(me % 2, -me);
    ASSERT_NE(part, nullptr);
    std::vector<int> members;
    for (int peer = rank.size() - 1; peer >= 0; --peer) {
      if (peer % 2 == me % 2) members.push_back(peer);
    }
    EXPECT_EQ(part->size(), static_cast<int>(members.size()));
    EXPECT_EQ(members[static_cast<std::size_t>(part->rank())], me);
    EXPECT_EQ(part->backend(), rank.communicator->backend());

    const auto part_stream = rank.device().make_stream("part", StreamPriority::kNormal);
    const Tensor piece = rank.tensor(std::vector<std::int32_t>{me});
    const Tensor all = rank.tensor(std::vector<std::int32_t>(members.size()));
    part->all_gather(*part_stream, {"members", Phase::kComm}, all, piece);
    // Equal keys keep the order of the ranks. The parent still works, beside the part.
    const Tensor sum = rank.tensor(std::vector<double>{1.0 * me});
    rank.communicator->all_reduce(*rank.stream, {"sum", Phase::kComm}, sum);
    part_stream->synchronize();
    rank.stream->synchronize();
    EXPECT_EQ(rank.values<std::int32_t>(all), std::vector<std::int32_t>(members.begin(), members.end()));
    EXPECT_EQ(rank.values<double>(sum)[0], rank.size() * (rank.size() - 1) / 2);

    const auto whole = rank.communicator->split(3, 0);
    ASSERT_NE(whole, nullptr);
    EXPECT_EQ(whole->rank(), me);
    EXPECT_EQ(whole->size(), rank.size());

    const auto but_first = rank.communicator->split(me == 0 ? -1 : 0, me);
    EXPECT_EQ(but_first == nullptr, me == 0);
    if (but_first != nullptr) {
      EXPECT_EQ(but_first->size(), rank.size() - 1);
    }
  });
}

// Only one rank plans: whatever waited for the others would hang.
TEST_P(CommunicatorContract, APlanDeviceExchangesNothing) {
  on_every_rank([](RankWorld& world) {
    const auto machine = world.make_machine();
    const auto communicator = world.make_communicator(machine->device());
    if (communicator->rank() == 0) expect_declarations(*communicator);
  });
}

TEST_P(CommunicatorContract, DeclaresAsEveryBackendDoes) {
  on_every_rank([](RankWorld& world) {
    const auto machine = world.make_machine();
    expect_declarations(*world.make_communicator(machine->device()));
  });
}

TEST_P(CommunicatorContract, CollectivesDeclareWhatTheyTouch) {
  on_every_rank([](RankWorld& world) {
    Rank rank(world);
    // The same calls on a checked device of their own, so that its reports are not this test's failures.
    PlanDevice plan;
    CheckedDevice checked(plan, CheckedDevice::Policy::kCollect);
    Arena arena("gradients", MemoryKind::kDevice);
    const Tensor gradients = Tensor::reserve(arena, DType::kF32, {64});
    const auto compute = checked.make_stream("compute", StreamPriority::kNormal);
    const auto comm = checked.make_stream("comm", StreamPriority::kHigh);
    Event written = checked.make_event("written");
    compute->zero({"backward", Phase::kBackward}, gradients);
    compute->record(written);
    comm->wait(written, {"comm waits for gradients", Hazard::kReadAfterWrite});
    rank.communicator->all_reduce(*comm, {"sum", Phase::kComm}, gradients);
    EXPECT_TRUE(checked.checker().reports().empty());
    compute->zero({"next backward", Phase::kBackward}, gradients);
    EXPECT_FALSE(checked.checker().reports().empty()) << "the all-reduce hides that it touches its tensor";
  });
}

TEST_P(CommunicatorContract, RanksThatDisagreeGetAnError) {
  if (!GetParam().compares_sizes) GTEST_SKIP() << "this backend leaves it to its caller that ranks agree on sizes";
  on_every_rank([](RankWorld& world) {
    if (world.size == 1) return;  // nobody to disagree with
    const auto control = world.make_control();
    Rank rank(world);
    const std::int64_t mine = 8 * (rank.rank() + 1);
    const Tensor piece = rank.tensor(std::vector<float>(static_cast<std::size_t>(mine)));
    const Tensor whole = rank.tensor(std::vector<float>(static_cast<std::size_t>(mine * rank.size())));
    rank.communicator->all_gather(*rank.stream, {"weights of layer 3", Phase::kComm}, whole, piece);
    try {
      rank.finish();
      ADD_FAILURE() << "rank " << rank.rank() << " took a piece of another size";
    } catch (const CommError& error) {
      EXPECT_NE(std::string(error.what()).find("weights of layer 3"), std::string::npos) << error.what();
      EXPECT_EQ(error.exit_code(), ExitCode::kFailure);  // trying again would end the same way
    }
    // And goes on to: what comes behind it is not to be trusted.
    EXPECT_THROW(
        {
          rank.device().check();
          rank.communicator->check();
        },
        CommError);
  });
}

// Whatever they disagree on, also where a message is far longer than what its receiver has room for.
TEST_P(CommunicatorContract, NoCollectiveTakesMoreThanItHasRoomFor) {
  if (!GetParam().compares_sizes) GTEST_SKIP() << "this backend leaves it to its caller that ranks agree on sizes";
  using Call = std::function<void(Rank&, bool odd)>;
  const Label label{"layer 3", Phase::kComm};
  const auto floats = [](Rank& rank, std::size_t elems) { return rank.tensor(std::vector<float>(elems)); };
  const std::vector<std::pair<std::string, Call>> calls{
      {"all_reduce sizes",
       [&](Rank& rank, bool odd) {
         rank.communicator->all_reduce(*rank.stream, label, floats(rank, odd ? 300'000 : 9));
       }},
      {"types",
       [&](Rank& rank, bool odd) {
         rank.communicator->all_reduce(*rank.stream, label,
                                       odd ? rank.tensor(std::vector<double>(90)) : floats(rank, 90));
       }},
      {"reduce_scatter sizes",
       [&](Rank& rank, bool odd) {
         const std::size_t mine = odd ? 70'000 : 5;
         rank.communicator->reduce_scatter(*rank.stream, label, floats(rank, mine),
                                           floats(rank, mine * static_cast<std::size_t>(rank.size())));
       }},
      {"broadcast sizes",
       [&](Rank& rank, bool odd) {
         rank.communicator->broadcast(*rank.stream, label, floats(rank, odd ? 4 : 400'000), 0);
       }},
      {"roots",
       [&](Rank& rank, bool odd) { rank.communicator->broadcast(*rank.stream, label, floats(rank, 4), odd ? 1 : 0); }},
      {"kinds",
       [&](Rank& rank, bool odd) {
         if (odd) return rank.communicator->barrier(*rank.stream, label);
         rank.communicator->all_reduce(*rank.stream, label, floats(rank, 100'000));
       }},
  };
  for (const auto& [name, call] : calls) {
    SCOPED_TRACE(name);
    on_every_rank([&, &call = call](RankWorld& world) {
      if (world.size == 1) return;
      Rank rank(world);
      // What follows in the same stream must not get through either. A backend may know before the call is through.
      const auto all = [&] {
        call(rank, rank.rank() == 1);
        rank.finish();
      };
      EXPECT_THROW(all(), DisagreementError);
    });
  }
}

TEST_P(CommunicatorContract, ControlNamesRanksAtDifferentCalls) {
  if (!GetParam().compares_sizes) GTEST_SKIP() << "this backend leaves it to its caller that ranks agree on calls";
  on_every_rank([](RankWorld& world) {
    if (world.size == 1) return;
    const auto control = world.make_control();
    const bool odd = world.rank == 1;
    try {
      if (odd) {
        control->barrier();
      } else {
        control->all_gather(std::string(50'000, 'x'));
      }
      ADD_FAILURE() << "rank " << world.rank << " got through";
    } catch (const DisagreementError& error) {
      EXPECT_NE(std::string(error.what()).find("all_gather"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("barrier"), std::string::npos) << error.what();
    }
  });
}

TEST_P(CommunicatorContract, ControlGathersWhatWasPosted) {
  on_every_rank([](RankWorld& world) {
    const auto control = world.make_control();
    EXPECT_EQ(control->rank(), world.rank);
    EXPECT_EQ(control->size(), world.size);
    for (int step = 0; step < 20; ++step) {
      const std::array<double, 2> mine{0.1 * step, 1.0 * world.rank};
      control->post(mine);
      // Blocking calls may fall between post and finish: a checkpoint does.
      if (step % 3 == 0) control->barrier();
      if (step % 5 == 0) {
        EXPECT_EQ(control->broadcast(world.rank == 0 ? "go" : "", 0), "go");
      }
      std::vector<double> expected;
      for (int peer = 0; peer < world.size; ++peer) {
        expected.push_back(0.1 * step);
        expected.push_back(peer);
      }
      EXPECT_EQ(control->finish(), expected);
    }
    control->post({});
    EXPECT_TRUE(control->finish().empty());
  });
}

TEST_P(CommunicatorContract, ControlCarriesTexts) {
  on_every_rank([](RankWorld& world) {
    const auto control = world.make_control();
    const auto text_of = [](int rank) {
      return std::string(static_cast<std::size_t>(rank * 70001), static_cast<char>('a' + rank));
    };
    std::vector<std::string> expected;
    for (int peer = 0; peer < world.size; ++peer) expected.push_back(text_of(peer));
    EXPECT_EQ(control->all_gather(text_of(world.rank)), expected);  // rank 0's is empty
    EXPECT_EQ(control->all_gather(std::string("a\0b", 3)),
              std::vector<std::string>(expected.size(), std::string("a\0b", 3)));
    for (int root = 0; root < world.size; ++root) {
      EXPECT_EQ(control->broadcast(world.rank == root ? text_of(root) : "ignored", root), text_of(root));
    }
  });
}

TEST_P(CommunicatorContract, ControlsAreIndependentOfEachOther) {
  on_every_rank([](RankWorld& world) {
    const auto loss = world.make_control();
    const auto votes = world.make_control();
    const double mine = world.rank;
    loss->post({&mine, 1});
    const double vote = 10.0 * world.rank;
    votes->post({&vote, 1});
    std::vector<double> ranks(static_cast<std::size_t>(world.size));
    std::iota(ranks.begin(), ranks.end(), 0.0);
    EXPECT_EQ(loss->finish(), ranks);
    for (double& value : ranks) value *= 10;
    EXPECT_EQ(votes->finish(), ranks);
  });
}

// A second thread of each rank votes while the first ones exchange numbers, in an order that differs between ranks.
TEST_P(CommunicatorContract, ADuplicateIsForAnotherThread) {
  on_every_rank([](RankWorld& world) {
    constexpr int kCalls = 50;
    const auto control = world.make_control();
    const std::unique_ptr<Control> votes = control->duplicate();
    EXPECT_EQ(votes->rank(), world.rank);
    EXPECT_EQ(votes->size(), world.size);
    int told = 0;
    std::thread voter([&] {
      for (int call = 0; call < kCalls; ++call) {
        const std::vector<std::string> heard = votes->all_gather("vote " + std::to_string(call));
        told += std::ranges::count(heard, "vote " + std::to_string(call)) == world.size ? 1 : 0;
      }
    });
    if (world.rank % 2 == 1) voter.join();
    for (int call = 0; call < kCalls; ++call) {
      const double mine = call;
      control->post({&mine, 1});
      EXPECT_EQ(control->finish(), std::vector<double>(static_cast<std::size_t>(world.size), mine));
    }
    if (voter.joinable()) voter.join();
    EXPECT_EQ(told, kCalls);
  });
}

}  // namespace strake::comm
