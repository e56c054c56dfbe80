#include "launch/train/kernel_choices.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "checkpoint/directory.h"
#include "checkpoint/reader.h"
#include "launch/job/agreement.h"
#include "launch/run/run_folder.h"
#include "launch/train/kernel_cache.h"

namespace strake::launch {
namespace {

// On rank 0.
void choose(const Config& config, const RankParts& parts, KernelState& kernels) {
  const std::string tuned_for = kernels.tuned_for();
  std::optional<KernelCache> cache;
  if (const auto folder = kernel_cache_folder(config.run.kernel_cache); folder.has_value() && !tuned_for.empty())
    cache.emplace(parts.files, parts.log, *folder, tuned_for);
  const auto found = checkpoint::find_newest(parts.files, checkpoint_folder(config.run.dir));
  if (found.has_value()) {
    kernels.apply(nlohmann::json::parse(found->manifest.meta.choices).value("kernels", KernelChoices()));
  } else if (cache.has_value()) {
    kernels.apply(cache->read());
  }
  const std::vector<std::string> timed = kernels.tune();
  for (const std::string& line : timed) parts.log.info("{}", line);
  if (cache.has_value() && !timed.empty()) cache->keep(kernels.choices());
}

}  // namespace

void choose_kernels(const Config& config, const RankParts& parts) {
  KernelState* kernels = parts.device.kernel_state();
  if (kernels == nullptr) return;
  agree(parts.control, [&] {
    if (parts.leads()) choose(config, parts, *kernels);
  });
  const std::string told =
      parts.control.broadcast(parts.leads() ? nlohmann::json(kernels->choices()).dump() : std::string(), 0);
  if (parts.leads()) return;
  const auto chosen = nlohmann::json::parse(told).get<KernelChoices>();
  kernels->apply(chosen);
  if (kernels->choices() != chosen)
    parts.log.warning("{} cannot run every algorithm that rank 0 has chosen", parts.device.description());
}

}  // namespace strake::launch
