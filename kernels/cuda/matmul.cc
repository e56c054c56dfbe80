#include "kernels/matmul.h"

#include <algorithm>

#include "kernels/cuda/body.h"
#include "kernels/cuda/cuda_kernels.h"

namespace strake::kernels {
namespace {

using namespace cuda;

Matmuls& prepared(Device& device, const MatmulProblem& problem) {
  check_type(problem.type);
  check_type(problem.out_type);
  Matmuls& matmuls = CudaKernels::of(device).matmuls();
  STRAKE_CHECK(matmuls.prepare(problem), "cuBLASLt has no algorithm for " + problem.describe());
  return matmuls;
}

}  // namespace

Body LinearForward::on_cuda(Device& device, Operation& operation) const {
  const MatmulProblem problem{
      .kind = MatmulProblem::Kind::kForward,
      .epilogue = bias.defined() ? MatmulProblem::Epilogue::kBias : MatmulProblem::Epilogue::kNone,
      .rows = x.size(0),
      .ins = x.size(1),
      .outs = y.size(1),
      .type = x.dtype(),
      .out_type = y.dtype(),
      .accumulate = false,
      .layout = layout,
      .multiprocessors = CudaKernels::of(device).multiprocessors_for(MatmulProblem::Kind::kForward)};
  Matmuls& matmuls = prepared(device, problem);
  operation.workspace_bytes = Matmuls::kWorkspaceBytes;
  return untyped_body([=, *this, &matmuls](cudaStream_t stream, void* workspace) {
    matmuls.run(stream, problem, at(weight), at(x), at(y), at(bias), workspace);
  });
}

Body LinearBackwardWeight::on_cuda(Device& device, Operation& operation) const {
  const bool add = accumulate == Accumulate::kAdd;
  MatmulProblem problem{
      .kind = MatmulProblem::Kind::kBackwardWeight,
      .epilogue = MatmulProblem::Epilogue::kNone,
      .rows = x.size(0),
      .ins = x.size(1),
      .outs = dy.size(1),
      .type = dy.dtype(),
      .out_type = dweight.dtype(),
      .accumulate = add,
      .layout = layout,
      .multiprocessors = CudaKernels::of(device).multiprocessors_for(MatmulProblem::Kind::kBackwardWeight)};
  // The bias gradient comes out of the product where cuBLASLt can do that; it cannot add to what is there.
  bool fused = false;
  if (dbias.defined() && !add && dbias.dtype() == problem.out_type) {
    MatmulProblem with_bias = problem;
    with_bias.epilogue = MatmulProblem::Epilogue::kBiasGradient;
    fused = CudaKernels::of(device).matmuls().prepare(with_bias);
    if (fused) problem = with_bias;
  }
  Matmuls& matmuls = prepared(device, problem);
  operation.workspace_bytes = std::max(Matmuls::kWorkspaceBytes, column_sums_workspace_bytes(problem.outs));
  return untyped_body([=, *this, &matmuls](cudaStream_t stream, void* workspace) {
    const bool out_in = layout == WeightLayout::kOutIn;
    matmuls.run(stream, problem, at(out_in ? x : dy), at(out_in ? dy : x), at(dweight), fused ? at(dbias) : nullptr,
                workspace);
    if (dbias.defined() && !fused) column_sums(stream, dbias, dy, add, workspace);
  });
}

Body LinearBackwardInput::on_cuda(Device& device, Operation& operation) const {
  const MatmulProblem problem{
      .kind = MatmulProblem::Kind::kBackwardInput,
      .epilogue = MatmulProblem::Epilogue::kNone,
      .rows = dy.size(0),
      .ins = dx.size(1),
      .outs = dy.size(1),
      .type = dy.dtype(),
      .out_type = dx.dtype(),
      .accumulate = false,
      .layout = layout,
      .multiprocessors = CudaKernels::of(device).multiprocessors_for(MatmulProblem::Kind::kBackwardInput)};
  Matmuls& matmuls = prepared(device, problem);
  operation.workspace_bytes = Matmuls::kWorkspaceBytes;
  return untyped_body([=, *this, &matmuls](cudaStream_t stream, void* workspace) {
    matmuls.run(stream, problem, at(weight), at(dy), at(dx), nullptr, workspace);
  });
}

}  // namespace strake::kernels
