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
#include <vector>

#include "kernels/matmul.h"
#include "runtime/base/dtype.h"
#include "runtime/device/tensor.h"

namespace strake::kernels::cuda {

// One product of the step. out[M, N] (+)= left * right, in the terms of kernels/matmul.h.
struct MatmulProblem {
  enum class Kind : std::uint8_t { kForward, kBackwardInput, kBackwardWeight } kind;
  enum class Epilogue : std::uint8_t { kNone, kBias, kBiasGradient } epilogue;
  std::int64_t rows, ins, outs;  // M, K, N of the forward product
  DType type;                    // of the operands
  DType out_type;
  bool accumulate;
  WeightLayout layout = WeightLayout::kOutIn;
  int multiprocessors = 0;  // that the algorithm is laid out for; 0: all. What runs beside it has the others.

  auto operator<=>(const MatmulProblem&) const = default;
  std::string describe() const;  // "forward 65536x768x2304 bf16->bf16 bias"; " in_out", " on 124 SMs" behind it
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
  // kForward: a = weight, b = x, out = y, bias read. kBackwardInput: a = weight, b = dy, out = dx.
  // kBackwardWeight: a = x, b = dy (kInOut: a = dy, b = x), out = dweight, bias written.
  // REQUIRES: prepare(problem) was true.
  void run(cudaStream_t stream, const MatmulProblem& problem, const void* a, const void* b, void* out, void* bias,
           void* workspace);

  // Times the candidates of every problem prepared so far for which nothing was applied, on random data in memory of
  // its own, and keeps the fastest. Blocks. Returns one line a problem: first heuristic and choice in microseconds and
  // TFLOP/s.
  std::vector<std::string> tune();
  // {"problem": "hex of the algorithm"} and the version of the library that understands it, and back. Unknown problems
  // are kept for when they are prepared. What another version chose, or what does not run on this GPU, is left out.
  std::map<std::string, std::string> choices() const;
  void apply(const std::map<std::string, std::string>& choices);

 private:
  struct Prepared;
  Prepared* find(const MatmulProblem& problem);
  cublasStatus_t enqueue(cudaStream_t stream, const MatmulProblem& problem, Prepared& prepared, const void* a,
                         const void* b, void* out, void* bias, void* workspace);
  // Takes the algorithm that was applied for the problem, if there is one that runs.
  void take_applied(const MatmulProblem& problem, Prepared& prepared);

  cublasLtHandle_t handle_ = nullptr;
  std::map<MatmulProblem, std::unique_ptr<Prepared>> problems_;
  std::map<std::string, std::string> applied_;
};

// sums [N] (+)= column sums of a [M, N]: the gradient of a bias where no product can bring it along. column_sums.cu
std::size_t column_sums_workspace_bytes(std::int64_t columns);
void column_sums(cudaStream_t stream, const Tensor& sums, const Tensor& a, bool accumulate, void* workspace);
// Its second half, for kernels that sum parts of the rows themselves: partials [kColumnSlices, N], added in order.
constexpr int kColumnSlices = 256;
void combine_column_sums(cudaStream_t stream, const Tensor& sums, const float* partials, bool accumulate);

}  // namespace strake::kernels::cuda
