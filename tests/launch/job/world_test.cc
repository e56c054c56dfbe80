// What a process computes on, beside the other ranks of its job, and how it ends when one of them fails.
#include "launch/job/world.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/token_file_writer.h"
#include "launch/job/agreement.h"
#include "launch/job/devices.h"
#include "launch/job/job_inputs.h"
#include "runtime/base/error.h"
#include "runtime/base/host_name.h"
#include "runtime/io/files.h"
#include "tests/support/scratch_folder.h"

namespace strake::launch {
namespace {

GpuOffer gpu(const std::string& uuid, const std::string& host = "n1") { return {uuid, "", host}; }
GpuOffer none(const std::string& missing, const std::string& host = "n1") { return {"", missing, host}; }

// What ConfigError says that `work` throws.
template <typename Work>
std::string refusal(Work work) {
  try {
    work();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(ChooseDevice, AGpuForEachRankIsTaken) {
  for (const DeviceChoice choice : {DeviceChoice::kAuto, DeviceChoice::kCuda}) {
    EXPECT_EQ(choose_device(choice, std::vector{gpu("GPU-a")}).kind, DeviceKind::kCuda);
    EXPECT_EQ(choose_device(choice, std::vector{gpu("GPU-a"), gpu("GPU-b")}).kind, DeviceKind::kCuda);
  }
  EXPECT_EQ(choose_device(DeviceChoice::kCpu, std::vector{gpu("GPU-a")}).kind, DeviceKind::kCpu);
}

// All ranks or none: a rank on the CPU could not talk to one on a GPU, and a whole job on CPUs takes a hundred times as
// long, so that is for people to want.
TEST(ChooseDevice, OneRankWithoutAGpuAmongOthersIsAnError) {
  const std::vector offers{gpu("GPU-a", "n1"), gpu("GPU-b", "n1"), none("no NVIDIA driver", "n2")};
  EXPECT_EQ(refusal([&] { choose_device(DeviceChoice::kAuto, offers); }),
            "rank 2 on host n2 has no GPU to compute on: no NVIDIA driver (rank 0 on host n1 has one). To compute on "
            "the CPU, on "
            "purpose, set run.device = cpu");
  EXPECT_EQ(refusal([&] { choose_device(DeviceChoice::kCuda, offers); }),
            "rank 2 on host n2 has no GPU to compute on: no NVIDIA driver (run.device = cuda). To compute on the CPU, "
            "on purpose, "
            "set run.device = cpu");
  EXPECT_EQ(choose_device(DeviceChoice::kCpu, offers).kind, DeviceKind::kCpu);
  const std::vector first_lacks{none("busy", "n1"), gpu("GPU-b", "n2")};
  const std::string refused = refusal([&] { choose_device(DeviceChoice::kAuto, first_lacks); });
  EXPECT_TRUE(refused.starts_with("rank 0 on host n1 has no GPU to compute on: busy (rank 1 on host n2 has one)"))
      << refused;
}

TEST(ChooseDevice, RanksThatWouldShareAGpuAreAnError) {
  const std::vector offers{gpu("GPU-a", "n3"), gpu("GPU-b", "n3"), gpu("GPU-a", "n3")};
  for (const DeviceChoice choice : {DeviceChoice::kAuto, DeviceChoice::kCuda}) {
    const std::string refused = refusal([&] { choose_device(choice, offers); });
    EXPECT_NE(refused.find("ranks 0 and 2 would share one GPU of host n3: start a rank for each GPU at most"),
              std::string::npos)
        << refused;
    EXPECT_NE(refused.find("set run.device = cpu"), std::string::npos) << refused;
  }
  EXPECT_EQ(choose_device(DeviceChoice::kCpu, offers).kind, DeviceKind::kCpu);
}

// Only what connects such ranks allows it, and only where that was asked for.
TEST(ChooseDevice, RanksShareAGpuIfTheyMay) {
  const std::vector offers{gpu("GPU-a", "n3"), gpu("GPU-b", "n3"), gpu("GPU-a", "n3")};
  const std::string refused = refusal([&] { choose_device(DeviceChoice::kAuto, offers); });
  EXPECT_NE(refused.find("or set comm.backend = staged, which is slow"), std::string::npos) << refused;
  for (const DeviceChoice choice : {DeviceChoice::kAuto, DeviceChoice::kCuda}) {
    EXPECT_EQ(choose_device(choice, offers, "", "run.device = ", GpuSharing::kAllowed).kind, DeviceKind::kCuda);
  }
  EXPECT_TRUE(shares_gpu(0, offers));
  EXPECT_FALSE(shares_gpu(1, offers));
  EXPECT_TRUE(shares_gpu(2, offers));
  // A rank without any is none that shares.
  const std::vector lacking{gpu("GPU-a"), none("busy"), none("busy")};
  EXPECT_FALSE(shares_gpu(1, lacking));
  EXPECT_NE(refusal([&] {
              choose_device(DeviceChoice::kAuto, lacking, "", "run.device = ", GpuSharing::kAllowed);
            }).find("rank 1 on host n1 has no GPU to compute on: busy"),
            std::string::npos);
}

TEST(ChooseDevice, NcclDoesNotConnectCpus) {
  const ChosenDevice cpu{DeviceKind::kCpu, "run.device = cpu"}, cuda{DeviceKind::kCuda, ""};
  EXPECT_EQ(refusal([&] { require_backend_for(CommBackend::kNccl, cpu); }),
            "comm.backend = nccl: NCCL connects GPUs, and the ranks compute on the CPU (run.device = cpu); set "
            "comm.backend = auto");
  for (const CommBackend backend : {CommBackend::kAuto, CommBackend::kStaged}) {
    EXPECT_NO_THROW(require_backend_for(backend, cpu));
  }
  for (const CommBackend backend : {CommBackend::kAuto, CommBackend::kNccl, CommBackend::kStaged}) {
    EXPECT_NO_THROW(require_backend_for(backend, cuda));
  }
}

TEST(ChooseDevice, WithoutAnyGpuTheCpuIsTaken) {
  const std::vector offers{none("no driver", "n1"), none("no driver", "n2")};
  const ChosenDevice chosen = choose_device(DeviceChoice::kAuto, offers);
  EXPECT_EQ(chosen.kind, DeviceKind::kCpu);
  EXPECT_EQ(chosen.no_gpus_because, "rank 0 on host n1 has no GPU to compute on: no driver");
  EXPECT_EQ(refusal([&] { choose_device(DeviceChoice::kCuda, std::vector{none("no driver")}, "", "--device "); }),
            "host n1 has no GPU to compute on: no driver (--device cuda). To compute on the CPU, on purpose, set "
            "--device cpu")
      << "alone: no rank is named";
}

TEST(ChooseDevice, ARunThatWasOnGpusDoesNotLeaveThemUnasked) {
  const std::vector offers{none("no driver")};
  EXPECT_EQ(refusal([&] { choose_device(DeviceChoice::kAuto, offers, "r/ckpt/step-00000009"); }),
            "host n1 has no GPU to compute on: no driver (r/ckpt/step-00000009 was computed on GPUs). To compute on "
            "the CPU, on "
            "purpose, set run.device = cpu");
  EXPECT_EQ(choose_device(DeviceChoice::kCpu, offers, "r/ckpt/step-00000009").kind, DeviceKind::kCpu);
  EXPECT_EQ(choose_device(DeviceChoice::kAuto, std::vector{gpu("GPU-a")}, "r/ckpt/step-00000009").kind,
            DeviceKind::kCuda);
}

TEST(ChooseDevice, OffersTravelAsText) {
  for (const GpuOffer& offer : {gpu("GPU-a"), none("no \"driver\",\n", "n 2"), none("")}) {
    const GpuOffer come = GpuOffer::from_text(offer.to_text());
    EXPECT_EQ(come.uuid, offer.uuid);
    EXPECT_EQ(come.missing, offer.missing);
    EXPECT_EQ(come.host, offer.host);
  }
}

TEST(ChooseDevice, TheCpuIsAlwaysThere) {
  EXPECT_TRUE(offer_gpu(DeviceChoice::kCpu, {}).uuid.empty());
  EXPECT_EQ(offer_gpu(DeviceChoice::kAuto, {}).host, host_name());
  EXPECT_EQ(make_device(DeviceKind::kCpu, {})->kind(), DeviceKind::kCpu);
  Config config;
  config.run.device = DeviceChoice::kCpu;
  EXPECT_EQ(run_as_rank([&](JobRank& rank) {
              RankDevice device(config, rank.control);
              return device.outer().kind() == DeviceKind::kCpu ? 0 : 1;
            }),
            0);
}

TEST(RunAsRank, GivesBackTheExitCode) {
  EXPECT_EQ(run_as_rank([](JobRank& rank) {
              EXPECT_EQ(rank.host->size(), 1);
              return rank.control.size() + 6;
            }),
            7);
  EXPECT_EQ(run_as_rank([](JobRank&) -> int { throw AgreedError(ExitCode::kData, "no such file"); }),
            static_cast<int>(ExitCode::kData));
}

// With several ranks it ends the job: launch_failing_rank_disk.
TEST(RunAsRank, LeavesTheErrorOfARankAloneToTheCaller) {
  EXPECT_THROW(run_as_rank([](JobRank&) -> int { throw DeviceError("lost"); }), DeviceError);
}

// 100 tokens of 16.
std::string small_token_file(const test::ScratchFolder& folder) {
  PosixFiles files;
  const std::filesystem::path path = folder.path() / "train.bin";
  data::TokenFileInfo info;
  info.vocab = 16;
  data::TokenFileWriter writer(files, path, info);
  writer.append(std::vector<std::int32_t>(100, 3));
  writer.finish();
  writer.publish();
  return path.string();
}

// A model that a GPU's kernels cannot compute is bad input, and is found on machines without one too.
TEST(JobInputs, AModelThatGpusCannotComputeIsRefused) {
  test::ScratchFolder folder;
  Config config;
  config.data.train = {small_token_file(folder)};
  config.train.global_batch = config.train.micro_batch = 1;
  config.train.sequence = 8;

  config.model.layers = 1;
  config.model.channels = 36;
  config.model.heads = 3;
  EXPECT_EQ(JobInputs::open(config, 0, 1, DeviceKind::kCpu).job.shape.channels, 36);
  const std::string refused = refusal([&] { JobInputs::open(config, 0, 1, DeviceKind::kCuda); });
  EXPECT_NE(refused.find("model.channels in steps of 8 up to 1048576, not 36"), std::string::npos) << refused;
  EXPECT_NE(refused.find("set run.device = cpu"), std::string::npos) << refused;
  config.model.channels = 48;
  EXPECT_EQ(JobInputs::open(config, 0, 1, DeviceKind::kCuda).job.dtype, DType::kBF16);
}

// NCCL rounds a sum of bf16 at every addition: with many ranks only who asks for it gets it.
TEST(JobInputs, AboveEightRanksGradientsAreSummedInF32) {
  test::ScratchFolder folder;
  Config config;
  config.data.train = {small_token_file(folder)};
  config.model.layers = 1;
  config.model.channels = 64;
  config.model.heads = 2;
  config.train.micro_batch = 1;
  config.train.sequence = 8;
  const auto wire = [&](int ranks, ComputeType asked, int accumulation = 1, DeviceKind device = DeviceKind::kCuda) {
    config.train.global_batch = ranks * accumulation;
    config.comm.wire_dtype = asked;
    return JobInputs::open(config, 0, ranks, device).job.wire_dtype;
  };
  EXPECT_EQ(wire(2, ComputeType::kAuto), DType::kBF16);
  EXPECT_EQ(wire(8, ComputeType::kAuto), DType::kBF16);
  EXPECT_EQ(wire(9, ComputeType::kAuto), DType::kF32);
  EXPECT_EQ(wire(64, ComputeType::kAuto), DType::kF32);
  EXPECT_EQ(wire(64, ComputeType::kBF16), DType::kBF16);
  EXPECT_EQ(wire(2, ComputeType::kF32), DType::kF32);
  EXPECT_EQ(wire(2, ComputeType::kAuto, 2), DType::kF32) << "gradients that add up are kept in f32";
  EXPECT_EQ(wire(16, ComputeType::kAuto, 1, DeviceKind::kCpu), DType::kF32);
}

}  // namespace
}  // namespace strake::launch
