#include "launch/train/kernel_cache.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/home_path.h"
#include "runtime/base/text.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kCacheFormat = "strake-kernel-choices-1";
constexpr std::uint64_t kMostCacheBytes = std::uint64_t{16} << 20;

}  // namespace

std::optional<std::filesystem::path> kernel_cache_folder(const std::string& setting) {
  if (setting == "none") return std::nullopt;
  if (setting != "auto") return setting;
  const char* caches = std::getenv("XDG_CACHE_HOME");
  const std::filesystem::path folder =
      caches != nullptr && std::filesystem::path(caches).is_absolute() ? caches : expand_home("~/.cache");
  if (!folder.is_absolute()) return std::nullopt;
  return folder / "strake";
}

KernelCache::KernelCache(Files& files, Logger log, std::filesystem::path folder, std::string tuned_for)
    : files_(files),
      log_(std::move(log)),
      path_(std::move(folder) / fmt::format("kernels-{:016x}.json", hash64(tuned_for))),
      tuned_for_(std::move(tuned_for)) {}

KernelChoices KernelCache::read() const {
  try {
    if (!files_.exists(path_)) return {};
    const Json json = Json::parse(read_file(files_, path_, kMostCacheBytes));
    if (json.at("format") == kCacheFormat && json.at("tuned_for") == tuned_for_) {
      return json.at("choices").get<KernelChoices>();
    }
    log_.warning("{} is of something else: kernels are timed anew", path_.string());
  } catch (const Error& error) {
    log_.warning("what was chosen by timing before cannot be read: {}", error.what());
  } catch (const Json::exception&) {
    log_.warning("{} is damaged: kernels are timed anew", path_.string());
  }
  return {};
}

void KernelCache::keep(const KernelChoices& choices) {
  KernelChoices all = read();
  const std::size_t known = all.size();
  all.insert(choices.begin(), choices.end());  // what is there stays
  if (all.size() == known) return;
  try {
    files_.make_directories(path_.parent_path());
    replace_file(files_, path_,
                 Json{{"format", kCacheFormat}, {"tuned_for", tuned_for_}, {"choices", all}}.dump(1) + "\n");
  } catch (const std::exception& error) {
    log_.warning("what was chosen by timing is not kept (run.kernel_cache): {}", error.what());
  }
}

}  // namespace strake::launch
