// How long do the initial weights of a model take, and does every core help?
//
// The weights of a GPT of a billion parameters (smoke: a small one) are made on the CPU device by 1, 2, 4, ... threads,
// up to the cores that this process may run on; the copy of a chunk runs on the stream's own thread meanwhile.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <vector>

#include "launch/job/rank_environment.h"
#include "models/initialize.h"
#include "models/transformer.h"
#include "runtime/device/cpu/cpu_device.h"
#include "tests/bench/bench_report.h"

namespace strake::bench {
namespace {

int run(const BenchOptions& options) {
  BenchReport report("initialize_bench", "how long do initial weights take, and does every core help?", options);
  const ParamLayout layout = models::parameters_of(options.smoke ? models::gpt2_shape(2, 256, 4, 257, 64)
                                                                 : models::gpt2_shape(16, 1024, 16, 50304, 1024));
  const auto device = make_cpu_device();
  Arena memory("weights", MemoryKind::kDevice), host("host", MemoryKind::kHost);
  const Tensor weights = Tensor::reserve(memory, DType::kF32, {layout.total_elems()});
  const Tensor staging = Tensor::reserve(host, DType::kF32, {models::initial_staging_elems(layout)});
  memory.allocate(*device);
  host.allocate(*device);
  const auto stream = device->make_stream("compute", StreamPriority::kNormal);
  const double parameters = static_cast<double>(layout.param_elems());
  report.say(fmt::format("{:.0f} million parameters", parameters / 1e6));

  models::initialize_weights(*stream, weights, staging, layout, 1, 1);  // first touch
  const int cores = launch::usable_cores({});
  std::vector<double> core_ns;
  for (int threads = 1; threads <= cores; threads = threads < cores ? std::min(2 * threads, cores) : cores + 1) {
    std::vector<double> wall_s;
    core_ns.clear();
    for (int i = 0; i < options.repeats; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      const std::clock_t core_begin = std::clock();
      models::initialize_weights(*stream, weights, staging, layout, 1, threads);
      core_ns.push_back(static_cast<double>(std::clock() - core_begin) / CLOCKS_PER_SEC / parameters * 1e9);
      wall_s.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    report.measured(fmt::format("{} threads", threads), "s", wall_s);
    report.measured("  processor time a parameter", "ns", core_ns);
  }
  // Processor time, which other work on a shared machine leaves alone, of all cores at once.
  const double for_1b_s = median_of(core_ns) / 16;
  report.verdict("a billion parameters take less than 5 s on 16 cores", for_1b_s < 5,
                 fmt::format("{:.2f} s, from the processor time of {} cores", for_1b_s, cores));
  return report.finish();
}

}  // namespace
}  // namespace strake::bench

int main(int argc, char** argv) {
  return strake::bench::run(strake::bench::parse_options(argc, argv, "Initial weights on all cores", 3));
}
