#include "runtime/base/home_path.h"

#include <pwd.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

namespace strake {
namespace {

std::string home_folder() {
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') return home;
  std::array<char, 16 * 1024> names{};
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(getuid(), &entry, names.data(), names.size(), &found) != 0 || found == nullptr) return {};
  return found->pw_dir;
}

}  // namespace

std::string expand_home(std::string_view path) {
  if (path != "~" && !path.starts_with("~/")) return std::string(path);
  std::string home = home_folder();
  if (home.empty()) return std::string(path);
  while (home.size() > 1 && home.ends_with('/')) home.pop_back();
  if (home == "/" && path.size() > 1) home.clear();  // "~/a" is "/a", not "//a"
  return home + std::string(path.substr(1));
}

}  // namespace strake
