// Which choices of kernels a run takes, times and keeps, by a device whose kernels only note what they are asked for.
#include "launch/train/kernel_choices.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "comm/threads/threads_world.h"
#include "launch/train/kernel_cache.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/forwarding.h"
#include "runtime/io/files.h"
#include "tests/support/scratch_folder.h"

namespace strake::launch {
namespace {

using Choices = KernelChoices;

// Products "a" and "b"; which algorithm is the fastest changes from one timing to the next.
class NotingKernels final : public KernelState {
 public:
  std::vector<std::string> tune() override {
    std::vector<std::string> lines;
    if (tuned_for_what.empty()) return lines;
    for (const std::string& product : met) {
      if (chosen_.contains(product)) continue;
      chosen_[product] = "timed " + std::to_string(++timings);
      lines.push_back(product);
    }
    return lines;
  }
  Choices choices() const override { return chosen_; }
  void apply(const Choices& choices) override {
    for (const std::string& product : met) {
      if (choices.contains(product)) chosen_[product] = choices.at(product);
    }
  }
  std::string tuned_for() const override { return tuned_for_what; }

  std::vector<std::string> met{"a", "b"};
  std::string tuned_for_what = "a GPU, a library 1.2";
  int timings = 0;

 private:
  Choices chosen_;
};

class DeviceWithKernels final : public ForwardingDevice {
 public:
  explicit DeviceWithKernels(Device& inner) : ForwardingDevice(inner) {}
  KernelState* kernel_state() const override { return &kernels_; }
  NotingKernels& kernels() { return kernels_; }

 private:
  mutable NotingKernels kernels_;
};

class KernelChoicesTest : public testing::Test {
 protected:
  KernelChoicesTest() {
    config_.run.dir = (folder_.path() / "run").string();
    config_.run.kernel_cache = (folder_.path() / "cache").string();
  }
  // What a run chooses.
  Choices run(DeviceWithKernels& device) {
    comm::ThreadsWorld world(1);
    const auto control = world.make_control(0);
    const auto communicator = world.make_communicator(0);
    testing::internal::CaptureStderr();
    choose_kernels(config_, {device, *communicator, *control, files_, Logger(0, 1, LogLevel::kWarning)});
    said_ = testing::internal::GetCapturedStderr();
    return device.kernels().choices();
  }
  std::vector<std::filesystem::path> cached() const {
    std::vector<std::filesystem::path> out;
    if (!std::filesystem::exists(config_.run.kernel_cache)) return out;
    for (const auto& entry : std::filesystem::directory_iterator(config_.run.kernel_cache)) out.push_back(entry.path());
    return out;
  }

  test::ScratchFolder folder_;
  PosixFiles files_;
  Config config_;
  std::string said_;
  std::unique_ptr<Device> cpu_ = make_cpu_device();
};

TEST_F(KernelChoicesTest, AreTimedOnceAndKept) {
  DeviceWithKernels first(*cpu_), second(*cpu_), third(*cpu_);
  const Choices chosen = run(first);
  EXPECT_EQ(first.kernels().timings, 2);
  EXPECT_EQ(cached().size(), 1u);
  second.kernels().timings = 10;
  EXPECT_EQ(run(second), chosen);
  EXPECT_EQ(second.kernels().timings, 10) << "nothing was timed";

  // Another model: only what is new is timed, and both are kept.
  third.kernels().met = {"b", "c"};
  third.kernels().timings = 20;
  const Choices more = run(third);
  EXPECT_EQ(more.at("b"), chosen.at("b"));
  EXPECT_EQ(more.at("c"), "timed 21");
  DeviceWithKernels fourth(*cpu_);
  fourth.kernels().met = {"a", "b", "c"};
  EXPECT_EQ(run(fourth).at("a"), chosen.at("a"));
  EXPECT_EQ(fourth.kernels().timings, 0);
  EXPECT_EQ(said_, "");
}

TEST_F(KernelChoicesTest, AreOfOneDeviceAndItsLibraries) {
  DeviceWithKernels first(*cpu_), newer(*cpu_);
  run(first);
  newer.kernels().tuned_for_what = "a GPU, a library 1.3";
  run(newer);
  EXPECT_EQ(newer.kernels().timings, 2);
  EXPECT_EQ(cached().size(), 2u);
  // A file that has come to lie in another's place.
  const auto files = cached();
  std::filesystem::copy_file(files[0], files[1], std::filesystem::copy_options::overwrite_existing);
  DeviceWithKernels one(*cpu_), other(*cpu_);
  other.kernels().tuned_for_what = "a GPU, a library 1.3";
  run(one);
  const std::string said = said_;
  run(other);
  EXPECT_EQ(one.kernels().timings + other.kernels().timings, 2) << "of one of them";
  EXPECT_NE((said + said_).find("is of something else"), std::string::npos) << said << said_;
}

// "none", and kernels that must repeat their bits.
TEST_F(KernelChoicesTest, AreNotKeptIfTheyMustNotBe) {
  DeviceWithKernels first(*cpu_), second(*cpu_);
  run(first);
  const auto before = cached();
  second.kernels().tuned_for_what = "";
  EXPECT_TRUE(run(second).empty()) << "neither timed nor read";
  EXPECT_EQ(cached(), before);
  const std::string folder = config_.run.kernel_cache;
  config_.run.kernel_cache = "none";
  DeviceWithKernels third(*cpu_);
  third.kernels().met = {"c"};
  run(third);
  EXPECT_EQ(third.kernels().timings, 1);
  config_.run.kernel_cache = folder;
  EXPECT_EQ(KernelCache(files_, Logger(), folder, third.kernels().tuned_for_what).read().count("c"), 0u);
}

TEST_F(KernelChoicesTest, DamagedFilesAreAWarning) {
  DeviceWithKernels first(*cpu_);
  run(first);
  const std::filesystem::path path = cached().at(0);
  const std::string whole = read_file(files_, path, 1 << 20);
  std::vector<std::string> damaged{"", "[]", "null", "{}", "\xff\xfe", R"({"format": "strake-kernel-choices-1"})"};
  for (std::size_t bytes = 1; bytes + 2 < whole.size(); bytes += 5) damaged.push_back(whole.substr(0, bytes));
  for (const char* value : {"7", "[]", R"({"a": 7})", R"({"a": null})"}) {
    nlohmann::json json = nlohmann::json::parse(whole);
    json["choices"] = nlohmann::json::parse(value);
    if (std::string_view(value) != "[]") damaged.push_back(json.dump());
  }
  for (const std::string& text : damaged) {
    std::ofstream(path, std::ios::binary) << text;
    DeviceWithKernels device(*cpu_);
    run(device);
    EXPECT_EQ(device.kernels().timings, 2) << text;
    EXPECT_NE(said_.find(path.string()), std::string::npos) << text << ": " << said_;
    DeviceWithKernels next(*cpu_);
    run(next);
    EXPECT_EQ(next.kernels().timings, 0) << "it was written anew";
  }
}

TEST_F(KernelChoicesTest, AFolderThatCannotBeIsAWarning) {
  std::ofstream(folder_.path() / "file") << "no folder";
  config_.run.kernel_cache = (folder_.path() / "file" / "cache").string();
  DeviceWithKernels device(*cpu_);
  run(device);
  EXPECT_EQ(device.kernels().timings, 2);
  EXPECT_NE(said_.find("run.kernel_cache"), std::string::npos) << said_;
}

TEST(KernelCacheFolder, FollowsTheSetting) {
  EXPECT_EQ(kernel_cache_folder("none"), std::nullopt);
  EXPECT_EQ(kernel_cache_folder("/a/b"), std::filesystem::path("/a/b"));
  const char* before = std::getenv("XDG_CACHE_HOME");
  const std::string kept = before == nullptr ? "" : before;
  ::setenv("XDG_CACHE_HOME", "/caches", 1);
  EXPECT_EQ(kernel_cache_folder("auto"), std::filesystem::path("/caches/strake"));
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  const auto folder = kernel_cache_folder("auto");
  ASSERT_TRUE(folder.has_value());
  EXPECT_TRUE(folder->string().ends_with("/.cache/strake")) << *folder;
  if (before == nullptr) {
    ::unsetenv("XDG_CACHE_HOME");
  } else {
    ::setenv("XDG_CACHE_HOME", kept.c_str(), 1);
  }
}

}  // namespace
}  // namespace strake::launch
