// FusedProducts: matrix products with what is made of them at once: GELU, its gradient, the gradient of a bias.
//
// There are several ways to each: all of it in cuBLASLt's epilogue, or a part in a kernel behind a plainer product. An
// epilogue saves a look at the result, and slows the product down: which way is fastest depends on the shape. The first
// of ways_of() is taken until a choice is applied or tune() has timed them; always that one where bits must repeat, for
// the ways round differently. Choices are plain data among those of Matmuls.
#pragma once

#include <compare>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "kernels/cuda/matmuls.h"

namespace strake::kernels::cuda {

struct FusedProblem {
  MatmulProblem product;                   // its epilogue stands for all that is wanted
  DType bias_gradient_type = DType::kF32;  // where one is wanted
  bool adds_bias_gradient = false;         // to what is there, which no epilogue does

  auto operator<=>(const FusedProblem&) const = default;
  std::string describe() const;
};

class FusedProducts {
 public:
  FusedProducts(Matmuls& matmuls, bool deterministic) : matmuls_(matmuls), deterministic_(deterministic) {}

  // Sets the problem up if it is new, in every way that there is.
  void prepare(const FusedProblem& problem);
  // Operands as of the product; what no epilogue makes goes where it would have gone. REQUIRES: it was prepared.
  void run(cudaStream_t stream, const FusedProblem& problem, const MatmulOperands& operands, void* workspace);
  // Of any way.
  static std::size_t workspace_bytes(const FusedProblem& problem);

  // Times the ways of every problem prepared so far for which nothing was applied, each with the algorithm that the
  // product has then, and keeps the fastest. Blocks; takes memory of its own. Returns a line a problem.
  std::vector<std::string> tune();
  // {"way of <problem>": "<epilogue of the product>"}, and back. What is no way here is left out.
  std::map<std::string, std::string> choices() const;
  void apply(const std::map<std::string, std::string>& choices);

 private:
  struct Ways {
    std::vector<MatmulProblem> products;  // what cuBLASLt computes; kernels do the rest
    std::size_t chosen = 0;
    bool applied = false;
  };
  void enqueue(cudaStream_t stream, const FusedProblem& problem, const MatmulProblem& product,
               const MatmulOperands& operands, void* workspace);
  void take_applied(const FusedProblem& problem, Ways& ways) const;

  Matmuls& matmuls_;
  bool deterministic_;
  std::map<FusedProblem, Ways> problems_;
  std::map<std::string, std::string> applied_;
};

}  // namespace strake::kernels::cuda
