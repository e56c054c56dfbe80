// Manifest: what a run was, complete enough to repeat it or to refuse a comparison. Written as
// `manifest.json` when an attempt starts; those of earlier attempts stay beside it as `manifest-0001.json`.
//
// Threads: values. Errors: IoError. The file is an account, never read to resume: that is in the checkpoint.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/job/rank_map.h"
#include "launch/train/initial_weights.h"
#include "runtime/device/param_spec.h"
#include "runtime/io/files.h"

namespace strake::launch {

struct Manifest {
  std::uint64_t run = 0;  // the same in every attempt and in every step record
  std::int64_t attempt = 1;
  std::vector<std::string> command_line;
  Config config;
  std::vector<RankDescription> ranks;
  Mesh mesh;
  std::string launcher;        // "plain", "mpirun", "srun"
  std::string choices = "{}";  // JSON object: everything chosen by measurement
  std::int64_t resumed_from_step = 0;
  std::optional<WeightsOrigin> initialized_from;  // of a run that started from other weights than random ones
};

// Adds what it finds out itself: time, machine, libraries, build. Keeps the manifest of the attempt before: a copy of
// it is durable before this one replaces it, so that a crash at any moment leaves a manifest.
void write_manifest(Files& files, const std::filesystem::path& run_folder, const Manifest& manifest);

// What a new attempt needs of an old manifest; all zero if there is none or it is not readable.
struct EarlierAttempt {
  std::uint64_t run = 0;
  std::int64_t attempt = 0;
  std::string init_from;  // train.init_from
  std::optional<WeightsOrigin> initialized_from;
};
EarlierAttempt read_earlier_attempt(Files& files, const std::filesystem::path& run_folder);

}  // namespace strake::launch
