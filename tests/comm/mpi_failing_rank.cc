// Rank 0 waits for a rank that fails in the way its argument says: `abort` calls Control::abort with exit code
// 15, `exception` lets an exception destroy its world. The test is that the job ends, and with which exit code.
#include <cstdio>
#include <stdexcept>
#include <string_view>

#include "comm/mpi/mpi_world.h"
#include "runtime/device/cpu/cpu_device.h"

int main(int argc, char** argv) {
  using namespace strake;
  const std::string_view how = argc > 1 ? argv[1] : "";
  try {
    comm::MpiWorld world;
    const auto control = world.make_control();
    const auto communicator = world.make_communicator();
    const auto device = make_cpu_device();
    Arena arena("data", MemoryKind::kDevice);
    const Tensor data = Tensor::reserve(arena, DType::kF32, {1000});
    arena.allocate(*device);
    if (world.rank() == 1) {
      if (how == "abort") control->abort(15);
      throw std::runtime_error("this rank cannot go on");
    }
    const auto stream = device->make_stream("comm", StreamPriority::kHigh);
    communicator->all_reduce(*stream, {"sum that never completes", Phase::kComm}, data);
    stream->synchronize();
    std::fprintf(stderr, "rank 0 was let through\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank survived: %s\n", error.what());
  }
  return 1;
}
