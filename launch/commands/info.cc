#include <fmt/format.h>

#include <algorithm>

#include "launch/commands/commands.h"
#include "launch/config.h"
#include "launch/job/devices.h"
#include "launch/machine/machine.h"
#include "launch/machine/machine_report.h"

namespace strake::launch {

int show_info() {
  const Build build = build_description();
  const Machine machine = read_machine();
  fmt::print("strake       {}\ncommit       {}\nbuild        {}, {}\nbackends     {}\n", build.version, build.commit,
             build.type, build.compiler, build.backends);
  for (const auto& [name, version] : library_versions()) fmt::print("{:<12} {}\n", name, version);
  fmt::print("host         {}\nsystem       {}\nprocessor    {}, {} cores usable\nmemory       {:.1f} GiB\n{}\n",
             machine.host, machine.os, machine.cpu, machine.cores,
             static_cast<double>(machine.memory_bytes) / (1 << 30), describe(read_gpus()));
  return 0;
}

int show_keys() {
  const auto keys = config_keys();
  std::size_t width = 0;
  for (const auto& key : keys) width = std::max(width, key.name.size());
  for (const auto& key : keys) {
    fmt::print("{:<{}}  {} [{}; default {}]\n", key.name, width, key.doc, key.accepts, key.value);
  }
  return 0;
}

}  // namespace strake::launch
