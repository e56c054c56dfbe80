// Matmuls: matrix products through cuBLASLt with an algorithm chosen for each shape.
//
// cuBLASLt is column-major; a row-major matrix is its transpose there. The first heuristic is taken until a choice is
// applied or tune() has timed the candidates. Choices are plain data: rank 0 tunes, the others apply, and a resumed run
// applies what its checkpoint says.
#pragma once

#include <cublasLt.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/timed_stream.h"
#include "kernels/matmul.h"
#include "runtime/base/dtype.h"

namespace strake::kernels::cuda {

// One product of the step. out[M, N] (+)= left * right, in the terms of kernels/matmul.h.
struct MatmulProblem {
  enum class Kind : std::uint8_t { kForward, kBackwardInput, kBackwardWeight } kind;
  // What becomes of the product on its way to memory. kGelu, and kBiasGelu behind a bias: GELU, and what it was taken
  // of is kept. kGeluGradient: times the slope of GELU; kGeluAndBiasGradient: and column sums of that.
  enum class Epilogue : std::uint8_t {
    kNone,
    kBias,
    kBiasGradient,
    kGelu,
    kBiasGelu,
    kGeluGradient,
    kGeluAndBiasGradient
  } epilogue;
  std::int64_t rows, ins, outs;  // M, K, N of the forward product
  DType type;                    // of the operands
  DType out_type;
  bool accumulate;
  WeightLayout layout = WeightLayout::kOutIn;
  int multiprocessors = 0;  // that the algorithm is laid out for; 0: all. What runs beside it has the others.

  auto operator<=>(const MatmulProblem&) const = default;
  std::string describe() const;  // "forward 65536x768x2304 bf16->bf16 bias"; " in_out", " on 124 SMs" behind it
};

std::string_view name_of(MatmulProblem::Epilogue epilogue);  // "none", "bias gelu"

// How large what a product reads and writes is.
struct MatmulBytes {
  std::size_t a = 0, b = 0, out = 0, bias = 0, gelu_of = 0;

  static MatmulBytes of(const MatmulProblem& problem);
  MatmulBytes or_larger(const MatmulBytes& other) const;
};

// kForward: a = weight, b = x, out = y. kBackwardInput: a = weight, b = dy, out = dx. kBackwardWeight: a = x, b = dy
// (kInOut: a = dy, b = x), out = dweight.
struct MatmulOperands {
  const void *a, *b;
  void* out;
  void* bias = nullptr;     // read by kBias and kBiasGelu; or its gradient, written
  void* gelu_of = nullptr;  // what GELU is taken of: written by kGelu and kBiasGelu, read by those of its gradient
};

// Random operands of products up to so many bytes, to time them with.
class MatmulScratch {
 public:
  MatmulScratch(cudaStream_t stream, const MatmulBytes& bytes, std::size_t workspace_bytes);

  MatmulOperands operands() const;
  void* workspace() const { return workspace_.get(); }

 private:
  Scratch a_, b_, out_, bias_, gelu_of_, workspace_;
};

class Matmuls {
 public:
  Matmuls();
  ~Matmuls();
  Matmuls(const Matmuls&) = delete;
  Matmuls& operator=(const Matmuls&) = delete;

  // All products use one workspace of this size.
  static constexpr std::size_t kWorkspaceBytes = 64 << 20;

  // Sets the problem up if it is new. False: cuBLASLt has no algorithm for it (an epilogue it does not support).
  bool prepare(const MatmulProblem& problem);
  // REQUIRES: prepare(problem) was true.
  void run(cudaStream_t stream, const MatmulProblem& problem, const MatmulOperands& operands, void* workspace);

  // Times the candidates of every problem prepared so far for which nothing was applied, on random data in memory of
  // its own, and keeps the fastest. Blocks. Returns one line a problem: first heuristic and choice in microseconds and
  // TFLOP/s.
  std::vector<std::string> tune();
  // {"problem": "hex of the algorithm"} and the version of the library that understands it, and back. Unknown problems
  // are kept for when they are prepared. What another version chose, or what does not run on this GPU, is left out.
  std::map<std::string, std::string> choices() const;
  void apply(const std::map<std::string, std::string>& choices);
  // Were they made with the library that is loaded?
  static bool are_of_this_library(const std::map<std::string, std::string>& choices);

 private:
  struct Prepared;
  Prepared* find(const MatmulProblem& problem);
  cublasStatus_t enqueue(cudaStream_t stream, const MatmulProblem& problem, Prepared& prepared,
                         const MatmulOperands& operands, void* workspace);
  // Takes the algorithm that was applied for the problem, if there is one that runs.
  void take_applied(const MatmulProblem& problem, Prepared& prepared);

  cublasLtHandle_t handle_ = nullptr;
  std::map<MatmulProblem, std::unique_ptr<Prepared>> problems_;
  std::map<std::string, std::string> applied_;
};

}  // namespace strake::kernels::cuda
