#include "launch/job/rank_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/job/agreement.h"
#include "runtime/base/error.h"
#include "runtime/base/host_name.h"

namespace strake::launch {
namespace {

double gib(std::uint64_t size_bytes) { return static_cast<double>(size_bytes) / (1u << 30); }

// Hosts may have one name, and containers of one host several.
std::string host_identity() {
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  return host_name() + " " + boot;
}

// "0::/user.slice" says where this process's group is; limits of the groups above hold too.
std::uint64_t control_group_limit_bytes() {
  std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const bool unified = line.starts_with("0::");
    const std::size_t memory = line.find(":memory:");
    if (!unified && memory == std::string::npos) continue;
    const std::filesystem::path root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    std::filesystem::path group = line.substr(unified ? 3 : memory + 8);
    for (;; group = group.parent_path()) {
      std::ifstream limit(root / group.relative_path() / (unified ? "memory.max" : "memory.limit_in_bytes"));
      if (std::uint64_t size_bytes = 0; limit >> size_bytes) least = std::min(least, size_bytes);  // not "max"
      if (!group.has_relative_path()) break;
    }
  }
  return least;
}

// What its own memory is for, and what makes it smaller.
std::string needs_of(const Trainer& trainer) {
  MemoryTable table = trainer.memory_table();
  const std::size_t all_bytes = table.size_bytes(MemoryKind::kDevice) + table.size_bytes(MemoryKind::kHost);
  std::string text;
  std::ranges::stable_sort(table.rows, std::ranges::greater(), &MemoryRow::size_bytes);
  for (const MemoryRow& part : table.rows) {
    if (part.size_bytes < all_bytes / 100) break;  // the rest is no more
    text += fmt::format("{}{} {:.2f} GiB{}", text.empty() ? "" : ", ", part.name, gib(part.size_bytes),
                        part.kind == MemoryKind::kHost ? " of host memory" : "");
  }
  return "A rank takes " + text +
         ". Smaller train.micro_batch and train.sequence shrink activations, and so does train.recompute (strake plan "
         "says how much); smaller model.layers, model.channels and model.vocab shrink everything; more ranks share out "
         "checkpoint staging";
}

}  // namespace

std::uint64_t available_host_bytes() {
  std::uint64_t available_bytes = 0;
  std::ifstream facts("/proc/meminfo");
  std::string name, unit;
  for (std::uint64_t kib = 0; facts >> name >> kib && std::getline(facts, unit);) {
    if (name == "MemAvailable:" || name == "SwapFree:") available_bytes += 1024 * kib;
  }
  return available_bytes == 0 ? 0 : std::min(available_bytes, control_group_limit_bytes());
}

void take_host_memory(comm::Control& control, std::uint64_t mine_bytes, const std::function<void()>& take,
                      const std::string& remedy, std::uint64_t available_bytes) {
  const std::string host = host_identity();
  std::uint64_t needed_bytes = 0;
  int sharing = 0;
  for (const std::string& text : control.all_gather(nlohmann::json{host, mine_bytes, available_bytes}.dump())) {
    const nlohmann::json told = nlohmann::json::parse(text);
    if (told.at(0) != host) continue;
    const auto its_bytes = told.at(1).get<std::uint64_t>();
    needed_bytes += std::min(its_bytes, std::numeric_limits<std::uint64_t>::max() - needed_bytes);
    available_bytes = std::min(available_bytes, told.at(2).get<std::uint64_t>());
    ++sharing;
  }
  agree(control, [&] {
    if (available_bytes > 0 && needed_bytes > available_bytes) {
      throw OutOfMemoryError(fmt::format(
          "out of memory: {} on host {} need{} {:.2f} GiB of host memory{}, and {:.2f} "
          "GiB are available. {}",
          sharing == 1 ? "the rank" : fmt::format("{} ranks", sharing), host_name(), sharing == 1 ? "s" : "",
          gib(needed_bytes), sharing == 1 ? "" : " together", gib(available_bytes), remedy));
    }
    try {
      take();
    } catch (const OutOfMemoryError& error) {
      throw OutOfMemoryError(fmt::format("out of memory: {}. {}", error.what(), remedy));
    }
  });
}

void take_memory(comm::Control& control, const Device& device, Trainer& trainer, std::uint64_t available_bytes) {
  const bool all_on_host = device.kind() == DeviceKind::kCpu;
  const std::uint64_t mine_bytes = trainer.memory().size_bytes(MemoryKind::kHost) +
                                   (all_on_host ? trainer.memory().size_bytes(MemoryKind::kDevice) : 0);
  take_host_memory(
      control, mine_bytes, [&] { trainer.allocate(); }, needs_of(trainer), available_bytes);
  trainer.register_memory();
}

}  // namespace strake::launch
