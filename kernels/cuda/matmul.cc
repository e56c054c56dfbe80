#include "kernels/matmul.h"

#include "kernels/cuda/body.h"
#include "kernels/cuda/cuda_kernels.h"

namespace strake::kernels {
namespace {

using namespace cuda;

using Epilogue = MatmulProblem::Epilogue;

// The body that computes `problem` on `operands`, which it makes of addresses when it runs.
template <typename Operands>
Body product_body(Device& device, Operation& operation, FusedProblem problem, Operands operands) {
  check_type(problem.product.type);
  check_type(problem.product.out_type);
  CudaKernels& kernels = CudaKernels::of(device);
  problem.product.multiprocessors = kernels.multiprocessors_for(problem.product.kind);
  FusedProducts& products = kernels.products();
  products.prepare(problem);
  operation.workspace_bytes = FusedProducts::workspace_bytes(problem);
  return untyped_body(
      [=, &products](cudaStream_t stream, void* workspace) { products.run(stream, problem, operands(), workspace); });
}

}  // namespace

Body LinearForward::on_cuda(Device& device, Operation& operation) const {
  const bool has_gelu = activated.defined(), has_bias = bias.defined();
  return product_body(device, operation,
                      {.product = {.kind = MatmulProblem::Kind::kForward,
                                   .epilogue = has_gelu ? (has_bias ? Epilogue::kBiasGelu : Epilogue::kGelu)
                                                        : (has_bias ? Epilogue::kBias : Epilogue::kNone),
                                   .rows = x.size(0),
                                   .ins = x.size(1),
                                   .outs = y.size(1),
                                   .type = x.dtype(),
                                   .out_type = y.dtype(),
                                   .accumulate = false,
                                   .layout = layout}},
                      [*this, has_gelu]() -> MatmulOperands {
                        return {.a = at(weight),
                                .b = at(x),
                                .out = at(has_gelu ? activated : y),
                                .bias = at(bias),
                                .gelu_of = has_gelu ? at(y) : nullptr};
                      });
}

Body LinearBackwardWeight::on_cuda(Device& device, Operation& operation) const {
  const bool add = accumulate == Accumulate::kAdd, out_in = layout == WeightLayout::kOutIn;
  return product_body(device, operation,
                      {.product = {.kind = MatmulProblem::Kind::kBackwardWeight,
                                   .epilogue = dbias.defined() ? Epilogue::kBiasGradient : Epilogue::kNone,
                                   .rows = x.size(0),
                                   .ins = x.size(1),
                                   .outs = dy.size(1),
                                   .type = dy.dtype(),
                                   .out_type = dweight.dtype(),
                                   .accumulate = add,
                                   .layout = layout},
                       .bias_gradient_type = dbias.defined() ? dbias.dtype() : DType::kF32,
                       .adds_bias_gradient = dbias.defined() && add},
                      [*this, out_in]() -> MatmulOperands {
                        return {
                            .a = at(out_in ? x : dy), .b = at(out_in ? dy : x), .out = at(dweight), .bias = at(dbias)};
                      });
}

Body LinearBackwardInput::on_cuda(Device& device, Operation& operation) const {
  return product_body(device, operation,
                      {.product = {.kind = MatmulProblem::Kind::kBackwardInput,
                                   .epilogue = dbias.defined()     ? Epilogue::kGeluAndBiasGradient
                                               : gelu_of.defined() ? Epilogue::kGeluGradient
                                                                   : Epilogue::kNone,
                                   .rows = dy.size(0),
                                   .ins = dx.size(1),
                                   .outs = dy.size(1),
                                   .type = dy.dtype(),
                                   .out_type = dx.dtype(),
                                   .accumulate = false,
                                   .layout = layout},
                       .bias_gradient_type = dbias.defined() ? dbias.dtype() : DType::kF32,
                       .adds_bias_gradient = dbias.defined() && accumulate == Accumulate::kAdd},
                      [*this]() -> MatmulOperands {
                        return {.a = at(weight), .b = at(dy), .out = at(dx), .bias = at(dbias), .gelu_of = at(gelu_of)};
                      });
}

}  // namespace strake::kernels
