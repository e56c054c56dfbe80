#include "launch/machine/machine.h"

#include <fmt/format.h>
#include <hdf5.h>
#include <mpi.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <string_view>
#ifdef STRAKE_HAS_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

#ifdef STRAKE_HAS_CUDA
#include "comm/nccl/nccl_communicator.h"
#include "kernels/cuda/make_kernels.h"
#include "runtime/device/cuda/cuda_device.h"
#endif
#include "launch/build_info.h"  // made by cmake/WriteBuildInfo.cmake

namespace strake::launch {
namespace {

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

// "Open MPI v4.1.4, package: ..." -> "4.1.4"; other MPIs: their first line.
std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "unknown";  // allowed before MPI_Init
  std::string_view version(text);
  constexpr std::string_view kOpenMpi = "Open MPI v";
  if (version.starts_with(kOpenMpi)) {
    version.remove_prefix(kOpenMpi.size());
    return std::string(version.substr(0, version.find(',')));
  }
  return std::string(version.substr(0, version.find('\n')));
}

}  // namespace

Machine read_machine() {
  Machine machine;
  utsname system{};
  if (uname(&system) == 0) {
    machine.host = system.nodename;
    machine.os = fmt::format("{} {} {}", system.sysname, system.release, system.machine);
  }
  machine.cpu = cpu_model();
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) machine.cores = CPU_COUNT(&allowed);
  const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_bytes > 0) {
    machine.memory_bytes = static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_bytes);
  }
  return machine;
}

std::vector<std::pair<std::string, std::string>> library_versions() {
  std::vector<std::pair<std::string, std::string>> versions;
  versions.emplace_back("mpi", mpi_version());
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  versions.emplace_back("hdf5", fmt::format("{}.{}.{}", major, minor, release));
#ifdef STRAKE_HAS_ONEDNN
  const dnnl_version_t* dnnl = dnnl_version();
  versions.emplace_back("onednn", fmt::format("{}.{}.{}", dnnl->major, dnnl->minor, dnnl->patch));
#endif
#ifdef STRAKE_HAS_CUDA
  versions.emplace_back("cuda_runtime", cuda_runtime_version());
  if (const std::string driver = cuda_driver_version(); !driver.empty()) versions.emplace_back("cuda_driver", driver);
  for (auto& [name, version] : kernels::cuda::library_versions()) versions.emplace_back(name, version);
  versions.emplace_back("nccl", comm::nccl_version());
#endif
  return versions;
}

Build build_description() {
  return {STRAKE_BUILD_VERSION, STRAKE_BUILD_COMMIT, STRAKE_BUILD_TYPE, STRAKE_BUILD_COMPILER, STRAKE_BUILD_BACKENDS};
}

}  // namespace strake::launch
