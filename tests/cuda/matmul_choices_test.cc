// Which algorithm a matrix product takes: what was chosen before where it can be taken, else what is timed now.
#include <gtest/gtest.h>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/matmuls.h"
#include "runtime/device/cuda/cuda_device.h"
#include "tests/support/gpu_ranks.h"

namespace strake::kernels::cuda {
namespace {

using Kind = MatmulProblem::Kind;
using Epilogue = MatmulProblem::Epilogue;
using Choices = std::map<std::string, std::string>;

constexpr MatmulProblem problem(Kind kind, Epilogue epilogue, DType type = DType::kBF16) {
  return {.kind = kind,
          .epilogue = epilogue,
          .rows = 512,
          .ins = 256,
          .outs = 768,
          .type = type,
          .out_type = type,
          .accumulate = false};
}
// The kernels' state says what a product is laid out for, apart for forward and backward.
TEST(SparedMultiprocessors, AreOfAKindOfProduct) {
  if (const std::string reason = test::gpus_missing(1); !reason.empty()) GTEST_SKIP() << reason;
  select_cuda_device(0);
  const int all = cuda_facts(0).multiprocessors;
  CudaKernels kernels(/*deterministic=*/true);
  EXPECT_EQ(kernels.multiprocessors_for(Kind::kForward), 0);
  kernels.spare({.forward = 0, .backward = 8});
  EXPECT_EQ(kernels.multiprocessors_for(Kind::kForward), 0);
  EXPECT_EQ(kernels.multiprocessors_for(Kind::kBackwardInput), all - 8);
  EXPECT_EQ(kernels.multiprocessors_for(Kind::kBackwardWeight), all - 8);
  kernels.spare({.forward = 4, .backward = 0});
  EXPECT_EQ(kernels.multiprocessors_for(Kind::kForward), all - 4);
  EXPECT_EQ(kernels.multiprocessors_for(Kind::kBackwardInput), 0);
}

// A bias is part of what is checked.
constexpr MatmulProblem kProblems[] = {problem(Kind::kForward, Epilogue::kBias),
                                       problem(Kind::kBackwardInput, Epilogue::kNone),
                                       problem(Kind::kBackwardWeight, Epilogue::kBiasGradient)};

class MatmulChoices : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = test::gpus_missing(1); !reason.empty()) GTEST_SKIP() << reason;
    const std::unique_ptr<Matmuls> first = prepared();
    timed_ = first->tune().size();
    chosen_ = first->choices();
    ASSERT_EQ(timed_, std::size(kProblems));
    ASSERT_EQ(chosen_.size(), timed_ + 1);
  }
  static std::unique_ptr<Matmuls> prepared() {
    auto matmuls = std::make_unique<Matmuls>();
    for (const MatmulProblem& each : kProblems) EXPECT_TRUE(matmuls->prepare(each)) << each.describe();
    return matmuls;
  }
  std::size_t timed_ = 0;
  Choices chosen_;
};

TEST_F(MatmulChoices, AreTakenAndNotTimedAgain) {
  const std::unique_ptr<Matmuls> behind = prepared();
  behind->apply(chosen_);
  EXPECT_EQ(behind->choices(), chosen_);
  EXPECT_TRUE(behind->tune().empty());
  EXPECT_EQ(behind->choices(), chosen_);

  Matmuls before;
  before.apply(chosen_);
  for (const MatmulProblem& each : kProblems) before.prepare(each);
  EXPECT_EQ(before.choices(), chosen_);
  EXPECT_TRUE(before.tune().empty());
}

TEST_F(MatmulChoices, OnlyWhatIsNewIsTimed) {
  const std::unique_ptr<Matmuls> matmuls = prepared();
  matmuls->prepare(problem(Kind::kForward, Epilogue::kNone));
  matmuls->prepare(problem(Kind::kForward, Epilogue::kNone, DType::kF32));  // never timed
  matmuls->apply(chosen_);
  const std::vector<std::string> report = matmuls->tune();
  ASSERT_EQ(report.size(), 1u);
  EXPECT_NE(report[0].find(problem(Kind::kForward, Epilogue::kNone).describe()), std::string::npos) << report[0];
}

// The layout of the weight is part of the problem, and of its name: an old choice is not taken for the new one.
TEST_F(MatmulChoices, AreOfOneLayout) {
  MatmulProblem in_out = problem(Kind::kForward, Epilogue::kBias);
  in_out.layout = WeightLayout::kInOut;
  Matmuls matmuls;
  EXPECT_TRUE(matmuls.prepare(in_out));
  matmuls.apply(chosen_);
  EXPECT_EQ(matmuls.tune().size(), 1u);
  EXPECT_EQ(matmuls.choices().count(in_out.describe()), 1u);
  EXPECT_EQ(matmuls.choices().count(kProblems[0].describe()), 0u);
}

// So is the number of multiprocessors: what was chosen for all of them says nothing about fewer.
TEST_F(MatmulChoices, AreOfOneNumberOfMultiprocessors) {
  MatmulProblem fewer = problem(Kind::kForward, Epilogue::kBias);
  fewer.multiprocessors = 100;
  EXPECT_TRUE(fewer.describe().ends_with(" on 100 SMs")) << fewer.describe();
  const std::unique_ptr<Matmuls> matmuls = prepared();
  EXPECT_TRUE(matmuls->prepare(fewer));
  matmuls->apply(chosen_);
  const std::vector<std::string> report = matmuls->tune();
  ASSERT_EQ(report.size(), 1u);
  EXPECT_NE(report[0].find(fewer.describe()), std::string::npos) << report[0];
  // And is taken again.
  const Choices both = matmuls->choices();
  EXPECT_EQ(both.size(), chosen_.size() + 1);
  const std::unique_ptr<Matmuls> behind = prepared();
  behind->prepare(fewer);
  behind->apply(both);
  EXPECT_EQ(behind->choices(), both);
  EXPECT_TRUE(behind->tune().empty());
}

TEST_F(MatmulChoices, OfAnotherLibraryAreLeftOut) {
  chosen_["cublaslt"] = "1";
  const std::unique_ptr<Matmuls> matmuls = prepared();
  matmuls->apply(chosen_);
  EXPECT_EQ(matmuls->tune().size(), timed_);
  chosen_.erase("cublaslt");
  const std::unique_ptr<Matmuls> unknown = prepared();
  unknown->apply(chosen_);
  EXPECT_EQ(unknown->tune().size(), timed_);
}

TEST_F(MatmulChoices, ThatAreNoAlgorithmAreLeftOut) {
  const Choices heuristics = prepared()->choices();
  for (auto& [name, choice] : chosen_) {
    if (name != "cublaslt") choice.back() = 'x';
  }
  const std::unique_ptr<Matmuls> matmuls = prepared();
  matmuls->apply(chosen_);
  EXPECT_EQ(matmuls->choices(), heuristics);
  EXPECT_EQ(matmuls->tune().size(), timed_);
}

}  // namespace
}  // namespace strake::kernels::cuda
