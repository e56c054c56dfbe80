// Ranks are threads in tests and processes in use: either way one thread computes, whatever OpenMP is told.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <thread>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "tests/kernels/arrays.h"

namespace strake::kernels::cpu {
namespace {

using namespace strake::kernels::testing;

constexpr std::int64_t kRows = 128, kOuts = 128, kIns = 128;

std::int64_t threads_of_this_process() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
}

struct Products {
  std::vector<float> y, dweight, dx;
};

Products all_products(const std::vector<float>& x, const std::vector<float>& weight, const std::vector<float>& dy) {
  Products out = {std::vector<float>(dy.size()), std::vector<float>(weight.size()), std::vector<float>(x.size())};
  const KernelTable<float>& table = kernel_table<float>();
  table.linear_forward(out.y.data(), x.data(), weight.data(), nullptr, kRows, kOuts, kIns);
  table.linear_backward_weight(out.dweight.data(), dy.data(), x.data(), kRows, kOuts, kIns, false);
  table.linear_backward_input(out.dx.data(), dy.data(), weight.data(), kRows, kOuts, kIns);
  return out;
}

// The test runs with OMP_NUM_THREADS=4 (CMakeLists.txt): oneDNN left to itself would start a team.
TEST(Threads, ProductsStartNoThreads) {
  Random random(401);
  const auto x = random.normal(kRows * kIns), weight = random.normal(kOuts * kIns), dy = random.normal(kRows * kOuts);
  std::thread worker([&] {
    const std::int64_t before = threads_of_this_process();
    all_products(x, weight, dy);
    EXPECT_EQ(threads_of_this_process(), before);
  });
  worker.join();
}

TEST(Threads, ResultsAreTheSameOnEveryThread) {
  Random random(402);
  const auto x = random.normal(kRows * kIns), weight = random.normal(kOuts * kIns), dy = random.normal(kRows * kOuts);
  std::vector<Products> results(3);
  {
    std::vector<std::jthread> workers;
    for (Products& result : results) workers.emplace_back([&] { result = all_products(x, weight, dy); });
  }
  for (const Products& result : results) {
    EXPECT_TRUE(equal_bits(result.y, results[0].y));
    EXPECT_TRUE(equal_bits(result.dweight, results[0].dweight));
    EXPECT_TRUE(equal_bits(result.dx, results[0].dx));
  }
}

}  // namespace
}  // namespace strake::kernels::cpu
