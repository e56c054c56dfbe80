#include "launch/run/shared_folder.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "launch/job/agreement.h"
#include "runtime/base/error.h"
#include "runtime/base/host_name.h"

namespace strake::launch {
namespace {

using std::chrono::steady_clock;

// All ranks must see the folder that rank 0 has taken: another one, as where a file system is not mounted, would
// split the checkpoints between two places, and make every one look damaged.
void require_one_folder(Files& files, comm::Control& control, const std::string& folder, std::uint64_t run) {
  if (control.size() == 1) return;
  const bool leads = control.rank() == 0;
  const std::filesystem::path path = std::filesystem::path(folder) / "run.seen";
  const std::string token =
      fmt::format("{:016x} {}\n", run, std::chrono::system_clock::now().time_since_epoch().count());
  agree(control, [&] {
    if (leads) replace_file(files, path, token);
  });
  const std::string told = control.broadcast(token, 0);
  agree(control, [&] {
    // A network file system may show a new file late.
    const auto give_up = steady_clock::now() + std::chrono::seconds(5);
    while (true) {
      if (files.exists(path) && read_file(files, path, 100) == told) return;
      if (steady_clock::now() >= give_up) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    throw ConfigError(
        fmt::format("run.dir: {} on host {} is not the folder that rank 0 has there; all ranks need one "
                    "shared folder: mount it, or name another",
                    folder, host_name()));
  });
  agree(control, [&] {
    if (leads) files.remove(path);
  });
}

}  // namespace

SharedFolder SharedFolder::open(Files& files, comm::Control& control, const Config& config) {
  SharedFolder folder;
  agree(control, [&] {
    if (control.rank() == 0) folder.taken.emplace(RunFolder::start(files, config.run.dir, config.checkpoint.resume));
  });
  nlohmann::json found;
  if (folder.taken.has_value()) found = {folder.taken->run(), folder.taken->attempt(), folder.taken->holds_run()};
  const nlohmann::json told = nlohmann::json::parse(control.broadcast(found.dump(), 0));
  folder.run = told.at(0);
  folder.attempt = told.at(1);
  folder.holds_run = told.at(2);
  require_one_folder(files, control, config.run.dir, folder.run);
  return folder;
}

}  // namespace strake::launch
