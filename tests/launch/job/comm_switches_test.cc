// The switches of [comm] that say how much of a GPU communication takes: what NCCL is told, what it cannot serve, and
// where they have no effect.
#include "launch/job/comm_switches.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace strake::launch {
namespace {

Config::Comm comm_of(std::vector<std::string> overrides) {
  overrides.emplace_back("data.train=t.bin");
  return load_config("", overrides).comm;
}

const Connection kOneHost{.backend = "nccl", .device = DeviceKind::kCuda, .ranks = 8, .hosts = 1};
const std::vector<std::string> kAll{"comm.min_ctas=2", "comm.max_ctas=8", "comm.buffers=symmetric",
                                    "comm.copy_engines=true", "comm.spare_sms=8"};
constexpr int kNewest = 22809, kMultiprocessors = 132;

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(CommSwitches, AreOffByDefault) {
  const comm::NcclOptions options = nccl_options({});
  EXPECT_EQ(options.min_ctas, 0);
  EXPECT_EQ(options.max_ctas, 0);
  EXPECT_EQ(options.buffers, comm::NcclOptions::Buffers::kPlain);
  EXPECT_FALSE(options.copy_engines);
  EXPECT_EQ(unserved_switches({}, 0, 1), "") << "any NCCL serves nothing";
  EXPECT_EQ(switches_text({}, kOneHost), "");
  EXPECT_EQ(switches_json({}, kOneHost).dump(),
            R"({"min_ctas":null,"max_ctas":null,"buffers":"plain","copy_engines":false,"spare_sms":0})");
}

TEST(CommSwitches, ReachNccl) {
  const comm::NcclOptions options = nccl_options(comm_of(kAll));
  EXPECT_EQ(options.min_ctas, 2);
  EXPECT_EQ(options.max_ctas, 8);
  EXPECT_EQ(options.buffers, comm::NcclOptions::Buffers::kSymmetric);
  EXPECT_TRUE(options.copy_engines);
  EXPECT_EQ(nccl_options(comm_of({"comm.buffers=registered"})).buffers, comm::NcclOptions::Buffers::kRegistered);
  EXPECT_EQ(switches_text(comm_of(kAll), kOneHost),
            "at least 2 CTAs, at most 8 CTAs, symmetric buffers, copy engines, 8 multiprocessors spared");
  EXPECT_EQ(switches_json(comm_of(kAll), kOneHost).dump(),
            R"({"min_ctas":2,"max_ctas":8,"buffers":"symmetric","copy_engines":true,"spare_sms":8})");
}

// The oldest that serves does, and the one before is refused with its version, the one that is needed and a way out.
TEST(CommSwitches, WhatThisNcclCannotServeIsRefused) {
  struct Case {
    std::vector<std::string> overrides;
    int oldest;
    const char *needs, *remedy;
  };
  for (const Case& each :
       {Case{{"comm.buffers=registered"}, 21900, "comm.buffers = registered needs NCCL 2.19", "comm.buffers = plain"},
        Case{{"comm.buffers=symmetric"}, 22700, "comm.buffers = symmetric needs NCCL 2.27", "comm.buffers = plain"},
        Case{{"comm.buffers=symmetric", "comm.copy_engines=true"},
             22800,
             "comm.copy_engines = true needs NCCL 2.28",
             "comm.copy_engines = false"}}) {
    SCOPED_TRACE(each.needs);
    const Config::Comm comm = comm_of(each.overrides);
    EXPECT_EQ(unserved_switches(comm, each.oldest, kMultiprocessors), "");
    EXPECT_EQ(unserved_switches(comm, kNewest, kMultiprocessors), "");
    const std::string refused = unserved_switches(comm, each.oldest - 100, kMultiprocessors);
    EXPECT_TRUE(refused.starts_with(each.needs)) << refused;
    EXPECT_TRUE(holds(refused, "older of the two is 2." + std::to_string(each.oldest / 100 % 100 - 1) + ":"))
        << refused;
    EXPECT_TRUE(refused.ends_with(each.remedy)) << refused;
    EXPECT_EQ(refused.find('\n'), std::string::npos) << refused;
  }
}

TEST(CommSwitches, AProductKeepsAMultiprocessor) {
  EXPECT_EQ(unserved_switches(comm_of({"comm.spare_sms=131"}), kNewest, kMultiprocessors), "");
  EXPECT_EQ(unserved_switches(comm_of({"comm.spare_sms=132"}), kNewest, kMultiprocessors),
            "comm.spare_sms = 132: the GPU has 132 multiprocessors, and products need some; lower it");
}

TEST(CommSwitches, SayWhereTheyHaveNoEffect) {
  EXPECT_EQ(idle_switches(comm_of(kAll), kOneHost), "");
  const Config::Comm all = comm_of(kAll);
  const Connection cpu{.backend = "mpi", .device = DeviceKind::kCpu, .ranks = 2, .hosts = 1};
  EXPECT_EQ(
      idle_switches(all, cpu),
      "comm.min_ctas, comm.max_ctas, comm.buffers, comm.copy_engines, comm.spare_sms have no effect: what connects "
      "these ranks is 'mpi'");
  EXPECT_EQ(switches_text(all, cpu), "");
  EXPECT_EQ(switches_json(all, cpu), switches_json({}, cpu));
  EXPECT_EQ(idle_switches({}, cpu), "");

  const Connection two_hosts{.backend = "nccl", .device = DeviceKind::kCuda, .ranks = 16, .hosts = 2};
  EXPECT_EQ(idle_switches(all, two_hosts),
            "comm.copy_engines has no effect: copy engines connect the GPUs of one host, and the ranks are on 2");
  EXPECT_FALSE(switches_json(all, two_hosts).at("copy_engines"));
  EXPECT_EQ(switches_json(all, two_hosts).at("buffers"), "symmetric");

  const Connection staged{.backend = "staged", .device = DeviceKind::kCuda, .ranks = 2, .hosts = 1};
  EXPECT_EQ(idle_switches(comm_of({"comm.max_ctas=4"}), staged),
            "comm.max_ctas has no effect: what connects these ranks is 'staged'");
  EXPECT_TRUE(holds(idle_switches(comm_of({"comm.spare_sms=4"}), staged), "slows products and helps nobody"));
}

TEST(CommSwitches, SayNothingToOneRank) {
  const Connection alone{.backend = "threads", .device = DeviceKind::kCuda, .ranks = 1, .hosts = 1};
  EXPECT_EQ(idle_switches(comm_of(kAll), alone), "");
  EXPECT_EQ(switches_text(comm_of(kAll), alone), "");
  EXPECT_EQ(switches_json(comm_of(kAll), alone), switches_json({}, alone));
}

}  // namespace
}  // namespace strake::launch
