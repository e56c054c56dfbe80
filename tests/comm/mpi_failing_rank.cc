// Rank 0 waits for a rank that fails in the way its argument says: `abort` calls Control::abort with exit code 15,
// `exception` lets an exception destroy its world, `killed` and the name of a collective: it is killed in the middle of
// that, staged in many chunks. The test is that the job ends, and with which exit code.
#include <csignal>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/forwarding_communicator.h"
#include "comm/mpi/mpi_world.h"
#include "comm/staged/staged_communicator.h"
#include "runtime/device/cpu/cpu_device.h"

namespace strake {
namespace {

// Ends the process before the third exchange of any kind.
class KilledCommunicator final : public comm::ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;

 protected:
  Body all_reduce_body(const std::string& name, const Tensor& data) override {
    return killing(ForwardingCommunicator::all_reduce_body(name, data));
  }
  Body reduce_scatter_body(const std::string& name, const Tensor& out, const Tensor& in) override {
    return killing(ForwardingCommunicator::reduce_scatter_body(name, out, in));
  }
  Body all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) override {
    return killing(ForwardingCommunicator::all_gather_body(name, out, in));
  }
  Body broadcast_body(const std::string& name, const Tensor& data, int root) override {
    return killing(ForwardingCommunicator::broadcast_body(name, data, root));
  }
  Body all_to_all_body(const std::string& name, const Tensor& out, std::vector<std::int64_t> recv_elems,
                       const Tensor& in, std::vector<std::int64_t> send_elems) override {
    return killing(
        ForwardingCommunicator::all_to_all_body(name, out, std::move(recv_elems), in, std::move(send_elems)));
  }

 private:
  Body killing(Body body) {
    return [this, body = std::move(body)](NativeStream native) {
      if (++exchanges_ == 3) raise(SIGKILL);
      body(native);
    };
  }
  int exchanges_ = 0;
};

void run_collective(std::string_view kind, comm::Communicator& communicator, Stream& stream, const Tensor& data) {
  const Label label{"cut short", Phase::kComm};
  const std::int64_t half = data.elems() / 2;
  const std::vector<std::int64_t> counts{half / 2, half / 2};
  if (kind == "all_reduce") return communicator.all_reduce(stream, label, data);
  if (kind == "reduce_scatter")
    return communicator.reduce_scatter(stream, label, data.flat(half * communicator.rank(), half), data);
  if (kind == "all_gather")
    return communicator.all_gather(stream, label, data, data.flat(half * communicator.rank(), half));
  if (kind == "broadcast") return communicator.broadcast(stream, label, data, 1);
  if (kind == "all_to_all")
    return communicator.all_to_all(stream, label, data.flat(0, half), counts, data.flat(half, half), counts);
  throw std::runtime_error("no such collective");
}

int run(std::string_view how, std::string_view kind) {
  comm::MpiWorld world;
  const auto control = world.make_control();
  auto communicator = world.make_communicator();
  const auto device = make_cpu_device();
  Arena arena("data", MemoryKind::kDevice);
  const Tensor data = Tensor::reserve(arena, DType::kF32, {100'000});
  arena.allocate(*device);
  if (how == "killed") {
    if (world.rank() == 1) communicator = std::make_unique<KilledCommunicator>(std::move(communicator));
    communicator = std::make_unique<comm::StagedCommunicator>(std::move(communicator), *device, 4096);
    const auto stream = device->make_stream("comm", StreamPriority::kHigh);
    run_collective(kind, *communicator, *stream, data);
    stream->synchronize();
    std::fprintf(stderr, "rank %d was let through\n", world.rank());
    control->abort(0);
  }
  if (world.rank() == 1) {
    if (how == "abort") control->abort(15);
    throw std::runtime_error("this rank cannot go on");
  }
  const auto stream = device->make_stream("comm", StreamPriority::kHigh);
  communicator->all_reduce(*stream, {"sum that never completes", Phase::kComm}, data);
  stream->synchronize();
  std::fprintf(stderr, "rank 0 was let through\n");
  return 1;
}

}  // namespace
}  // namespace strake

int main(int argc, char** argv) {
  try {
    return strake::run(argc > 1 ? argv[1] : "", argc > 2 ? argv[2] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank survived: %s\n", error.what());
  }
  return 1;
}
