// Ranks are threads in tests and processes in use: either way one thread computes, whatever OpenMP is told.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <thread>
#include <vector>

#include "kernels/matmul.h"
#include "tests/kernels/operands.h"

namespace strake::kernels {
namespace {

using namespace strake::kernels::testing;

constexpr std::int64_t kRows = 128, kOuts = 128, kIns = 128;

std::int64_t threads_of_this_process() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
}

struct Inputs {
  Operand x, weight, dy;
};
Inputs random_inputs(std::uint64_t seed) {
  Random random(seed);
  return {operand({kRows, kIns}, random.normal(kRows * kIns)), operand({kOuts, kIns}, random.normal(kOuts * kIns)),
          operand({kRows, kOuts}, random.normal(kRows * kOuts))};
}

// y, dweight and dx, with the code that operations run.
Results all_products(const Inputs& in) {
  const auto product = [](const std::vector<Operand>& operands, const auto& make) {
    return run(CpuCode::fastest(), DType::kF32, operands, make)[0];
  };
  return {product({output({kRows, kOuts}), in.x, in.weight},
                  [](const auto& t) {
                    return LinearForward{t[0], t[1], t[2]};
                  }),
          product({output({kOuts, kIns}), in.dy, in.x},
                  [](const auto& t) {
                    return LinearBackwardWeight{t[0], Tensor(), t[1], t[2], Accumulate::kOverwrite};
                  }),
          product({output({kRows, kIns}), in.dy, in.weight}, [](const auto& t) {
            return LinearBackwardInput{t[0], t[1], t[2]};
          })};
}

// The test runs with OMP_NUM_THREADS=4 (CMakeLists.txt): oneDNN left to itself would start a team.
TEST(Threads, ProductsStartNoThreads) {
  const Inputs inputs = random_inputs(401);
  std::thread worker([&] {
    const std::int64_t before = threads_of_this_process();
    all_products(inputs);
    EXPECT_EQ(threads_of_this_process(), before);
  });
  worker.join();
}

TEST(Threads, ResultsAreTheSameOnEveryThread) {
  const Inputs inputs = random_inputs(402);
  std::vector<Results> results(3);
  {
    std::vector<std::jthread> workers;
    for (Results& result : results) workers.emplace_back([&] { result = all_products(inputs); });
  }
  for (const Results& result : results) {
    for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(equal_bits(result[i], results[0][i])) << i;
  }
}

}  // namespace
}  // namespace strake::kernels
