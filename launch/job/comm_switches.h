// How much of a GPU communication takes: comm.min_ctas, max_ctas, buffers, copy_engines and spare_sms, as NCCL is told
// of them, what can serve them, and what people are told.
//
// All are off by default. They say nothing to one rank, and are no error where they can have no effect: a file that was
// written for GPUs trains on CPUs too.
// Threads: values, pure functions.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "comm/nccl/nccl_options.h"
#include "launch/config.h"
#include "runtime/device/device.h"

namespace strake::launch {

comm::NcclOptions nccl_options(const Config::Comm& comm);

// Why a run that asks for these switches cannot be had, one line with the remedy; empty: it can.
// `nccl`: as comm::nccl_usable_version counts; `multiprocessors`: of a rank's GPU.
std::string unserved_switches(const Config::Comm& comm, int nccl, int multiprocessors);

// What connects the ranks, and where they are.
struct Connection {
  std::string backend;  // Communicator::backend
  DeviceKind device = DeviceKind::kCpu;
  int ranks = 1;
  int hosts = 1;
};
// Which of the switches that are set have no effect there, and why, one line; empty: all have, or there is one rank.
std::string idle_switches(const Config::Comm& comm, const Connection& connection);

// As they count: null, false, 0 or "plain" where they have no effect. For manifests and reports.
nlohmann::ordered_json switches_json(const Config::Comm& comm, const Connection& connection);
// "at most 8 CTAs, symmetric buffers, 8 multiprocessors spared"; empty: all are off, or have no effect.
std::string switches_text(const Config::Comm& comm, const Connection& connection);

}  // namespace strake::launch
