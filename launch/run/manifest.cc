#include "launch/run/manifest.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launch/job/devices.h"
#include "launch/machine/machine_report.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kLargestManifestBytes = 64 << 20;

}  // namespace

void write_manifest(Files& files, const std::filesystem::path& run_folder, const Manifest& manifest) {
  Json json;
  json["format"] = "strake-manifest-1";
  json["run"] = fmt::format("{:016x}", manifest.run);
  json["attempt"] = manifest.attempt;
  json["started"] = utc_now();
  json["resumed_from_step"] = manifest.resumed_from_step;
  json["initialized_from"] = nullptr;
  if (const auto& origin = manifest.initialized_from) {
    json["initialized_from"] = {{"checkpoint", origin->checkpoint}, {"step", origin->step}};
  }
  json["command_line"] = manifest.command_line;
  json["directory"] = std::filesystem::current_path().string();
  json["config"] = Json::parse(config_to_json(manifest.config));
  json["config_hash"] = config_hash(manifest.config);
  json["build"] = build_json();
  json["hardware"] = hardware_json(read_gpus());
  json["libraries"] = libraries_json();

  Json ranks = Json::array();
  for (const RankDescription& rank : manifest.ranks) ranks.push_back(to_json(rank));
  json["topology"] = {{"launcher", manifest.launcher},
                      {"hosts", hosts_of(manifest.ranks)},
                      {"ranks", manifest.ranks.size()},
                      {"mesh",
                       {{"data", manifest.mesh.size(MeshAxis::kData)},
                        {"tensor", manifest.mesh.size(MeshAxis::kTensor)},
                        {"expert", manifest.mesh.size(MeshAxis::kExpert)}}}};
  json["ranks"] = std::move(ranks);
  json["choices"] = Json::parse(manifest.choices);

  const std::filesystem::path path = run_folder / "manifest.json";
  // A copy, durable before the original is replaced: a crash at any moment leaves a manifest.
  if (const EarlierAttempt earlier = read_earlier_attempt(files, run_folder); earlier.attempt > 0) {
    write_file_durably(files, run_folder / fmt::format("manifest-{:04}.json", earlier.attempt),
                       read_file(files, path, kLargestManifestBytes));
  }
  // Names and paths come from the operating system: a byte that is not UTF-8 must not end the run.
  write_file_durably(files, path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

EarlierAttempt read_earlier_attempt(Files& files, const std::filesystem::path& run_folder) {
  const std::filesystem::path path = run_folder / "manifest.json";
  if (!files.exists(path)) return {};
  const Json json = Json::parse(read_file(files, path, kLargestManifestBytes), nullptr, false);
  if (!json.is_object() || !json.contains("attempt") || !json["attempt"].is_number_integer()) return {};
  EarlierAttempt earlier;
  earlier.attempt = json["attempt"];
  if (json.contains("run") && json["run"].is_string()) {
    earlier.run = std::strtoull(json["run"].get<std::string>().c_str(), nullptr, 16);
  }
  const auto at = [&](const char* pointer) { return json.value(Json::json_pointer(pointer), Json()); };
  if (const Json key = at("/config/train/init_from"); key.is_string()) earlier.init_from = key;
  const Json checkpoint = at("/initialized_from/checkpoint"), step = at("/initialized_from/step");
  if (checkpoint.is_string() && step.is_number_integer()) earlier.initialized_from = WeightsOrigin{checkpoint, step};
  return earlier;
}

}  // namespace strake::launch
