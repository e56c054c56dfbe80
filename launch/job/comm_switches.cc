#include "launch/job/comm_switches.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

const char* name_of(CommBuffers buffers) {
  switch (buffers) {
    case CommBuffers::kPlain:
      return "plain";
    case CommBuffers::kRegistered:
      return "registered";
    case CommBuffers::kSymmetric:
      return "symmetric";
  }
  return "?";
}

// "2.28", of a version as NCCL counts it.
std::string release(int nccl) { return fmt::format("{}.{}", nccl / 10000, nccl / 100 % 100); }

// What is left of them where they are used.
Config::Comm effective(Config::Comm comm, const Connection& connection) {
  const bool nccl = connection.backend == "nccl" && connection.ranks > 1;
  if (!nccl) {
    comm.min_ctas = comm.max_ctas = std::nullopt;
    comm.buffers = CommBuffers::kPlain;
  }
  if (!nccl || connection.hosts > 1) comm.copy_engines = false;
  if (connection.device != DeviceKind::kCuda || connection.ranks == 1) comm.spare_sms = 0;
  return comm;
}

}  // namespace

comm::NcclOptions nccl_options(const Config::Comm& comm) {
  using Buffers = comm::NcclOptions::Buffers;
  return {.min_ctas = static_cast<int>(comm.min_ctas.value_or(0)),
          .max_ctas = static_cast<int>(comm.max_ctas.value_or(0)),
          .buffers = comm.buffers == CommBuffers::kSymmetric    ? Buffers::kSymmetric
                     : comm.buffers == CommBuffers::kRegistered ? Buffers::kRegistered
                                                                : Buffers::kPlain,
          .copy_engines = comm.copy_engines};
}

std::string unserved_switches(const Config::Comm& comm, int nccl, int multiprocessors) {
  const auto needs = [&](const std::string& setting, int least, const char* off) {
    return fmt::format(
        "{} needs NCCL {} or newer, in the headers that this program is built with and in the library that it finds, "
        "and "
        "the older of the two is {}: `strake info` names the library; put a newer one first in LD_LIBRARY_PATH, or set "
        "{}",
        setting, release(least), release(nccl), off);
  };
  if (comm.copy_engines && nccl < comm::kNcclWithCopyEngines)
    return needs("comm.copy_engines = true", comm::kNcclWithCopyEngines, "comm.copy_engines = false");
  const int least = comm.buffers == CommBuffers::kSymmetric ? comm::kNcclWithWindows : comm::kNcclWithRegistration;
  if (comm.buffers != CommBuffers::kPlain && nccl < least)
    return needs(fmt::format("comm.buffers = {}", name_of(comm.buffers)), least, "comm.buffers = plain");
  if (comm.spare_sms >= multiprocessors && comm.spare_sms > 0) {
    return fmt::format("comm.spare_sms = {}: the GPU has {} multiprocessors, and products need some; lower it",
                       comm.spare_sms, multiprocessors);
  }
  return "";
}

std::string idle_switches(const Config::Comm& comm, const Connection& connection) {
  if (connection.ranks == 1) return "";
  const Config::Comm used = effective(comm, connection);
  std::vector<std::string> idle;
  if (comm.min_ctas != used.min_ctas) idle.emplace_back("comm.min_ctas");
  if (comm.max_ctas != used.max_ctas) idle.emplace_back("comm.max_ctas");
  if (comm.buffers != used.buffers) idle.emplace_back("comm.buffers");
  if (comm.copy_engines != used.copy_engines) idle.emplace_back("comm.copy_engines");
  if (comm.spare_sms != used.spare_sms) idle.emplace_back("comm.spare_sms");
  if (!idle.empty()) {
    const std::string why =
        connection.backend == "nccl"
            ? fmt::format("copy engines connect the GPUs of one host, and the ranks are on {}", connection.hosts)
            : fmt::format("what connects these ranks is '{}'", connection.backend);
    return fmt::format("{} {} no effect: {}", fmt::join(idle, ", "), idle.size() == 1 ? "has" : "have", why);
  }
  if (used.spare_sms > 0 && connection.backend == "staged")
    return "comm.spare_sms slows products and helps nobody: staged collectives take no multiprocessors";
  return "";
}

Json switches_json(const Config::Comm& comm, const Connection& connection) {
  const Config::Comm used = effective(comm, connection);
  const auto or_null = [](const std::optional<std::int64_t>& ctas) { return ctas.has_value() ? Json(*ctas) : Json(); };
  return {{"min_ctas", or_null(used.min_ctas)},
          {"max_ctas", or_null(used.max_ctas)},
          {"buffers", name_of(used.buffers)},
          {"copy_engines", used.copy_engines},
          {"spare_sms", used.spare_sms}};
}

std::string switches_text(const Config::Comm& comm, const Connection& connection) {
  const Config::Comm used = effective(comm, connection);
  std::vector<std::string> set;
  if (used.min_ctas.has_value()) set.push_back(fmt::format("at least {} CTAs", *used.min_ctas));
  if (used.max_ctas.has_value()) set.push_back(fmt::format("at most {} CTAs", *used.max_ctas));
  if (used.buffers != CommBuffers::kPlain) set.push_back(fmt::format("{} buffers", name_of(used.buffers)));
  if (used.copy_engines) set.emplace_back("copy engines");
  if (used.spare_sms > 0) set.push_back(fmt::format("{} multiprocessors spared", used.spare_sms));
  return fmt::format("{}", fmt::join(set, ", "));
}

}  // namespace strake::launch
