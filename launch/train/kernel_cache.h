// KernelCache: what kernels have chosen by timing, kept on disk from one run to the next, a file for each kind of
// device and libraries (KernelState::tuned_for).
//
// A file is replaced as a whole, so that readers find the old one or the new one; of two runs that add to it at once
// one may lose what it added, and its next run times that again. It is only a cache: a file that is damaged or cannot
// be read or written is a warning, and everything is timed as if there were none. Threads: one. Errors: none.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "runtime/base/log.h"
#include "runtime/io/files.h"

namespace strake::launch {

using KernelChoices = std::map<std::string, std::string>;

// The folder that run.kernel_cache means: its own words, or for "auto" $XDG_CACHE_HOME/strake or ~/.cache/strake. None:
// "none", or this user has no home.
std::optional<std::filesystem::path> kernel_cache_folder(const std::string& setting);

class KernelCache {
 public:
  // `tuned_for`: what choices are good for, any text.
  KernelCache(Files& files, Logger log, std::filesystem::path folder, std::string tuned_for);

  const std::filesystem::path& path() const { return path_; }
  // Empty: there are none.
  KernelChoices read() const;
  // Adds what the file does not have yet.
  void keep(const KernelChoices& choices);

 private:
  Files& files_;
  Logger log_;
  std::filesystem::path path_;
  std::string tuned_for_;
};

}  // namespace strake::launch
