// What this process runs on and was built from: for the manifest and `strake info`. Read from the
// operating system and the libraries themselves, so that a record says what ran, not what was compiled.
// Threads: any. Errors: none; what cannot be read is "unknown" or 0.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace strake::launch {

struct Machine {
  std::string host;
  std::string cpu;
  int cores = 0;  // this process may run on
  std::uint64_t memory_bytes = 0;
  std::string os;  // "Linux 6.1.0-28-amd64 x86_64"
};
Machine read_machine();

// Name and run-time version of each library: {"mpi", "4.1.4"}, {"hdf5", "1.10.8"}, ... "cuda_driver" is the newest CUDA
// that the driver supports, and is left out where there is none.
std::vector<std::pair<std::string, std::string>> library_versions();

struct Build {
  std::string version;   // of Strake
  std::string commit;    // with "-dirty" if the tree had changes; "unknown" outside a repository
  std::string type;      // "Release"
  std::string compiler;  // "GNU 12.2.0"
  std::string backends;  // "cpu" or "cpu, cuda"
};
Build build_description();

}  // namespace strake::launch
