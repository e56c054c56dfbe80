// The rank map: where every rank of a job lives and what it computes on, for people, events and the manifest.
//
// Ranks are numbered as the launcher numbers them. Nothing depends on the order in which hosts come: NCCL makes its
// rings within a host first whatever the numbers, host communicators send as much between hosts either way. Threads:
// values; describe_ranks is collective, on the training thread. Errors: CommError.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "comm/control.h"
#include "runtime/device/device.h"

namespace strake::launch {

// One rank, as it describes itself; travels as text.
struct RankDescription {
  int rank = 0;
  std::string host;
  std::int64_t pid = 0;
  std::string device;           // "cpu", "cuda:0 (NVIDIA H100 80GB HBM3, PCI 0000:1B:00.0)"
  int cores = 1;                // that it can keep busy
  std::string gpu = {};         // "NVIDIA H100 80GB HBM3"; empty: it computes on the CPU
  std::string pci_bus_id = {};  // of the GPU
  std::string link = {};  // to the GPU of the next rank of its host: "NV18 through NVSwitch"; empty: there is none
};
std::string to_text(const RankDescription& rank);
// REQUIRES: made by to_text.
RankDescription rank_description(const std::string& text);

// Of all ranks, in their order, the same on each. Collective.
std::vector<RankDescription> describe_ranks(comm::Control& control, const Device& device);

int hosts_of(std::span<const RankDescription> ranks);

// A line for the ranks of one host that compute on the same kind of device, none ends in a newline:
//   "ranks 0-3  n1  4 x NVIDIA H100 80GB HBM3, NV18 through NVSwitch, PCI 0000:04:00.0 0000:05:00.0 ..."
std::string rank_map_text(std::span<const RankDescription> ranks);
nlohmann::ordered_json to_json(const RankDescription& rank);

}  // namespace strake::launch
