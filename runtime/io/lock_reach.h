// LockReach: how far the kernel's lock of a file (File::try_lock) is seen.
//
// A file system that several hosts use may keep flock() to the host that asked: then each of them gets the lock, and it
// proves nothing about the others. What a mount does is told by its type and options.
// Threads: values. Errors: none; what cannot be found out is kUnknown.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace strake {

enum class LockReach : std::uint8_t {
  kOneHost,   // only this host uses the file system, so its kernel knows of every lock
  kAllHosts,  // the file server, or the hosts together, keep the locks of all
  kUnknown,   // perhaps only this host's: it tells nothing about the others
};

// `file_system`: statfs's f_type. `mount_options`: comma-separated, as /proc/self/mountinfo has them.
LockReach lock_reach(std::int64_t file_system, std::string_view mount_options);

// The options of the file system behind device `device` ("0:44"), its own and the mount's, from the text of
// /proc/self/mountinfo; empty: it is not there.
std::string mount_options(std::string_view mountinfo, std::string_view device);

// Of the file system that an open file lies on.
LockReach lock_reach_of(int file_descriptor);

}  // namespace strake
