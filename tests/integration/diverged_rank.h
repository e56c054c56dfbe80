// A training run of two ranks in which one bit of rank 1's state flips between two steps.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/directory.h"
#include "launch/run/run_folder.h"
#include "runtime/base/error.h"
#include "tests/integration/small_job.h"
#include "tests/integration/variants.h"

namespace strake::test {

// Flips a bit of one f32 of `state` behind what is enqueued: one of the mantissa that the next updates do not round
// away. Blocks the host.
inline void flip_a_bit(launch::Trainer& trainer, Device& device, const Tensor& state, std::int64_t elem) {
  Arena arena("a flipped bit", MemoryKind::kHost);
  const Tensor copied = Tensor::reserve(arena, DType::kF32, {1});
  arena.allocate(device);
  trainer.compute().copy({"to the host"}, copied, state.flat(elem, 1));
  trainer.compute().synchronize();
  std::uint32_t bits = 0;
  std::memcpy(&bits, host_bytes(copied).data(), sizeof bits);
  bits ^= 1u << 12;
  std::memcpy(host_bytes(copied).data(), &bits, sizeof bits);
  trainer.compute().copy({"and back"}, state.flat(elem, 1), copied);
  trainer.compute().synchronize();
}

struct DivergedRun {
  std::array<std::string, 2> errors;  // what each rank threw; empty: nothing
  std::array<int, 2> exit_codes{};
  std::vector<std::int64_t> checkpoints;  // newest first
};

// Eight steps of `config` with a checkpoint behind each third and the last. `tensor`, of the state's table, loses a bit
// on rank 1 before step 5; empty: nothing happens.
inline DivergedRun run_with_flipped_bit(
    launch::Config config, const std::string& tensor,
    const MakeDevice& make_device = [](int) { return make_cpu_device(); }) {
  const Watchdog watchdog("a run whose ranks diverge");
  config.train.steps = 8;
  config.checkpoint.every = 3;
  config.checkpoint.keep = 10;
  DivergedRun outcome;
  run_threads(config, 2, [&](int rank, const RunRank& run) {
    const auto device = make_device(rank);
    launch::Trainer* trainer = nullptr;
    RankSetup setup{.device = device.get()};
    setup.hooks.before_first_step = [&](launch::Trainer& started) { trainer = &started; };
    setup.hooks.before_step = [&](std::int64_t step) {
      if (rank != 1 || step != 4 || tensor.empty()) return;
      for (const TensorTable::Entry& entry : trainer->state_table().entries) {
        if (entry.name == tensor) return flip_a_bit(*trainer, *device, entry.view, 5);
      }
      ADD_FAILURE() << "no tensor " << tensor;
    };
    try {
      run(std::move(setup));
    } catch (const Error& error) {
      outcome.errors[static_cast<std::size_t>(rank)] = error.what();
      outcome.exit_codes[static_cast<std::size_t>(rank)] = static_cast<int>(error.exit_code());
    }
  });
  PosixFiles files;
  outcome.checkpoints = checkpoint::committed_steps(files, launch::checkpoint_folder(config.run.dir));
  return outcome;
}

// Whatever differs is found by the next checkpoint, which is not written.
inline void expect_a_flipped_bit_ends_the_run(const std::function<launch::Config()>& config,
                                              const MakeDevice& make_device) {
  const DivergedRun sound = run_with_flipped_bit(config(), "", make_device);
  EXPECT_EQ(sound.errors, (std::array<std::string, 2>{}));
  EXPECT_EQ(sound.checkpoints, (std::vector<std::int64_t>{8, 6, 3}));
  const std::pair<const char*, const char*> parts[] = {
      {"param/wte.weight", "weights on rank 1"},
      {"adam_m/h.1.attn.qkv.weight", "first moments on rank 1"},
      {"adam_v/ln_f.bias", "second moments on rank 1"},
  };
  for (const auto& [tensor, said] : parts) {
    SCOPED_TRACE(tensor);
    const DivergedRun diverged = run_with_flipped_bit(config(), tensor, make_device);
    EXPECT_EQ(diverged.errors[0], diverged.errors[1]);
    EXPECT_EQ(diverged.exit_codes, (std::array{static_cast<int>(ExitCode::kFailure), 1}));
    for (const char* part : {said, "behind step 6", "No checkpoint was written", "the last one"})
      EXPECT_NE(diverged.errors[0].find(part), std::string::npos) << "no '" << part << "' in: " << diverged.errors[0];
    EXPECT_EQ(diverged.checkpoints, std::vector<std::int64_t>{3});
  }
}

}  // namespace strake::test
