#include "launch/plan/plan.h"

#include <fmt/format.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/token_files.h"
#include "launch/job/devices.h"
#include "launch/job/rank_memory.h"
#include "launch/plan/plan_report.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

// What data.train says where nothing does: a plan reads no tokens.
const std::vector<std::string> kNoTokenFile{"no token file"};

std::int64_t vocab_of(const Config& config) {
  if (config.model.vocab != 0) return config.model.vocab;
  const char* const remedy =
      "add model.vocab=256 for tokens that `strake data prepare` makes of bytes, model.vocab=50257 for GPT-2's";
  if (config.data.train == kNoTokenFile) {
    throw ConfigError(
        fmt::format("model.vocab: is not set, and neither is data.train, whose tokenizer would tell; {}", remedy));
  }
  std::int64_t vocab = 0;
  try {
    vocab = data::TokenFiles(data::find_token_files(config.data.train), config.data.dtype).vocab();
  } catch (const Error& error) {
    throw ConfigError(
        fmt::format("model.vocab: is not set, and data.train does not tell: {}; {}", error.what(), remedy));
  }
  if (vocab == 0) {
    throw ConfigError(fmt::format("model.vocab: is not set, and the token files do not tell; {}", remedy));
  }
  return vocab;
}

// The device that is planned for, where it is here.
struct Here {
  std::unique_ptr<Device> device;
  DeviceKind kind = DeviceKind::kCpu;
  std::string no_gpus_because;     // where the CPU is planned for
  std::uint64_t memory_bytes = 0;  // that a rank could have
  std::string memory_of;
};

Here look(DeviceChoice choice, bool deterministic, int ranks) {
  Here here;
  const GpuOffer offer = offer_gpu(choice, RankEnvironment::detect());
  if (!offer.uuid.empty()) {
    here.kind = DeviceKind::kCuda;
    here.device = make_device(here.kind, {.deterministic = deterministic});
    for (const GpuFacts& gpu : read_gpus().gpus) {
      if (gpu.uuid != offer.uuid) continue;
      here.memory_bytes = gpu.memory_bytes;
      here.memory_of = gpu.name;
    }
  } else if (choice == DeviceChoice::kCuda) {
    here.kind = DeviceKind::kCuda;
  } else {
    here.no_gpus_because = choice == DeviceChoice::kCpu ? "which was asked for" : offer.missing;
    here.memory_bytes = available_host_bytes() / static_cast<std::uint64_t>(ranks);
    here.memory_of = ranks == 1 ? "this host has" : fmt::format("this host has for each of {} ranks", ranks);
  }
  return here;
}

}  // namespace

int run_plan(const PlanArguments& arguments) {
  Config defaults;
  defaults.data.train = kNoTokenFile;
  const Config config = load_config(arguments.config_path, arguments.overrides, defaults);
  const std::int64_t vocab = vocab_of(config);
  derive(config, arguments.ranks);  // what is wrong with the batch, before anything is looked for
  const Here here = look(arguments.device.value_or(config.run.device), config.train.deterministic, arguments.ranks);

  require_backend_for(config.comm.backend, {here.kind, here.no_gpus_because});

  const PlanTarget target{.kind = here.kind, .device = here.device.get(), .ranks = arguments.ranks};
  Planner planner(target, vocab);
  PlanTarget with_schedule = target;
  with_schedule.schedule = arguments.print_schedule;
  PlanReport report{.config_path = arguments.config_path,
                    .plan = Planner(with_schedule, vocab).plan(config),
                    .fits = {},
                    .limit_bytes = arguments.memory_bytes > 0 ? arguments.memory_bytes : here.memory_bytes,
                    .limit_of = arguments.memory_bytes > 0 ? "--memory" : here.memory_of};
  report.fits = fit_policies(planner, config, report.plan, report.limit_bytes);
  std::cout << (arguments.json ? to_json(report).dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
                               : describe(report))
            << '\n';
  if (arguments.print_schedule) std::cout << "\nschedule of a rank:\n" << report.plan.schedule << '\n';
  // What was found here may be shared by others, or be another machine than the one that will train.
  if (arguments.memory_bytes > 0) {
    require_a_fit(planner, config, report.fits, arguments.ranks, report.limit_bytes);
  }
  return 0;
}

}  // namespace strake::launch
