#include "runtime/io/lock_reach.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <vector>

namespace strake {
namespace {

constexpr std::int64_t kNfs = 0x6969, kLustre = 0x0bd00bd0, kCeph = 0x00c36400, kGfs2 = 0x01161970, kOcfs2 = 0x7461636f;

// What one host alone mounts: ext2 to ext4, xfs, btrfs, tmpfs, ramfs, overlay, f2fs, zfs, jfs, bcachefs.
constexpr std::array<std::int64_t, 10> kOfOneHost = {0xef53,     0x58465342, 0x9123683e, 0x01021994, 0x858458f6,
                                                     0x794c7630, 0xf2f52010, 0x2fc12fc1, 0x3153464a, 0xca451a4e};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> words;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

}  // namespace

LockReach lock_reach(std::int64_t file_system, std::string_view mount_options) {
  if (std::find(kOfOneHost.begin(), kOfOneHost.end(), file_system) != kOfOneHost.end()) return LockReach::kOneHost;
  const std::vector<std::string_view> options = split(mount_options, ',');
  const auto has = [&](std::string_view option) {
    return std::find(options.begin(), options.end(), option) != options.end();
  };
  const auto all_hosts_if = [](bool shared) { return shared ? LockReach::kAllHosts : LockReach::kUnknown; };
  switch (file_system) {
    case kNfs:  // flock() is a lock of the whole file at the server, unless the mount says otherwise
      return all_hosts_if(has("local_lock=none") && !has("nolock"));
    case kLustre:  // there is also "localflock"
      return all_hosts_if(has("flock"));
    case kCeph:
      return LockReach::kAllHosts;
    case kGfs2:
    case kOcfs2:
      return all_hosts_if(!options.empty() && !has("localflocks"));
    default:
      return LockReach::kUnknown;
  }
}

std::string mount_options(std::string_view mountinfo, std::string_view device) {
  // "36 35 98:0 /root /mount/point rw,noatime optional:fields - type source rw,more": a path has no space, for those
  // are written \040. The file system's own options come last; of several mounts of it any will do.
  for (const std::string_view line : split(mountinfo, '\n')) {
    const std::vector<std::string_view> fields = split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 6 || fields[2] != device || fields.end() - dash < 4) continue;
    return fmt::format("{},{}", fields[5], dash[3]);
  }
  return {};
}

LockReach lock_reach_of(int file_descriptor) {
  struct statfs file_system {};
  struct stat status {};
  if (::fstatfs(file_descriptor, &file_system) != 0 || ::fstat(file_descriptor, &status) != 0) {
    return LockReach::kUnknown;
  }
  std::ifstream file("/proc/self/mountinfo");
  const std::string mountinfo{std::istreambuf_iterator<char>(file), {}};
  const std::string device = fmt::format("{}:{}", major(status.st_dev), minor(status.st_dev));
  // The kernel has 32 bits of it; the type's sign is the platform's.
  return lock_reach(static_cast<std::int64_t>(static_cast<std::uint32_t>(file_system.f_type)),
                    mount_options(mountinfo, device));
}

}  // namespace strake
