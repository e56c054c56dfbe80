#include "kernels/cuda/cudnn_attention.h"

#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <unordered_map>

#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::kernels::cuda {
namespace {

namespace fe = cudnn_frontend;
using fe::graph::Tensor_attributes;

// Names of the graph's tensors.
enum Uid : std::int64_t { kQ = 1, kK, kV, kO, kStats, kDO, kDQ, kDK, kDV };

std::string describe(fe::error_t error, const char* what, const AttentionShape& shape) {
  return fmt::format("cuDNN {}: attention {} of batch {}, {} tokens, {} heads of {}, {} key heads: {}",
                     cudnnGetVersion(), what, shape.batch, shape.length, shape.heads, shape.head_size, shape.kv_heads,
                     error.get_message());
}

void require(const fe::error_t& error, const char* what, const AttentionShape& shape) {
  if (!error.is_good()) [[unlikely]]
    throw DeviceError(describe(error, what, shape));
}

// Says of a tensor that it holds `heads` heads: [B, heads, T, D] in cuDNN's order of axes.
void set_heads(Tensor_attributes& tensor, Uid uid, const AttentionShape& shape, std::int64_t heads,
               const HeadStrides& stride) {
  tensor.set_uid(uid)
      .set_dim({shape.batch, heads, shape.length, shape.head_size})
      .set_stride({stride.batch, stride.head, stride.token, 1});
}
auto input(fe::graph::Graph& graph, const char* name, Uid uid, const AttentionShape& shape, std::int64_t heads,
           const HeadStrides& stride) {
  Tensor_attributes tensor;
  set_heads(tensor, uid, shape, heads, stride);
  return graph.tensor(tensor.set_name(name));
}
void set_stats(Tensor_attributes& tensor, const AttentionShape& shape) {
  tensor.set_uid(kStats)
      .set_data_type(fe::DataType_t::FLOAT)
      .set_dim({shape.batch, shape.heads, shape.length, 1})
      .set_stride({shape.heads * shape.length, shape.length, 1, 1});
}

// Of out and dout: [B, T, H, D], contiguous.
HeadStrides contiguous(const AttentionShape& shape) {
  const std::int64_t row = shape.heads * shape.head_size;
  return {.batch = shape.length * row, .token = row, .head = shape.head_size};
}

float scale_of(const AttentionShape& shape) { return 1.0f / std::sqrt(static_cast<float>(shape.head_size)); }

}  // namespace

struct CudnnAttentions::Graphs {
  cudnnHandle_t handle = nullptr;
  bool deterministic = false;
  std::map<Forward, std::shared_ptr<fe::graph::Graph>> forward;
  std::map<Backward, std::shared_ptr<fe::graph::Graph>> backward;

  std::shared_ptr<fe::graph::Graph> new_graph() {
    if (handle == nullptr && cudnnCreate(&handle) != CUDNN_STATUS_SUCCESS) {
      throw DeviceError("cudnnCreate failed: is cuDNN 9 installed beside the CUDA toolkit?");
    }
    auto graph = std::make_shared<fe::graph::Graph>();
    graph->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    return graph;
  }
  void build(fe::graph::Graph& graph, const char* what, const AttentionShape& shape) const {
    const auto supported = [&](const fe::error_t& error) {
      if (!error.is_good())
        throw ConfigError(describe(error, what, shape) + "; choose model.heads for heads of 64 or 128 channels");
    };
    supported(graph.validate());
    supported(graph.build_operation_graph(handle));
    supported(graph.create_execution_plans({fe::HeurMode_t::A}));
    supported(graph.check_support(handle));
    require(graph.build_plans(handle), what, shape);
  }
  static std::size_t workspace_bytes(const fe::graph::Graph& graph, const char* what, const AttentionShape& shape) {
    std::int64_t bytes = 0;
    require(graph.get_workspace_size(bytes), what, shape);
    return static_cast<std::size_t>(bytes);
  }
  template <typename Problem>
  void execute(const std::map<Problem, std::shared_ptr<fe::graph::Graph>>& built, const Problem& problem,
               const char* what, const AttentionShape& shape, cudaStream_t stream,
               std::unordered_map<std::int64_t, void*> tensors, void* workspace) const {
    const auto found = built.find(problem);
    STRAKE_CHECK(found != built.end(), "attention was not planned");
    STRAKE_CHECK(cudnnSetStream(handle, stream) == CUDNN_STATUS_SUCCESS, "cudnnSetStream");
    require(found->second->execute(handle, tensors, workspace), what, shape);
  }
};

CudnnAttentions::CudnnAttentions(bool deterministic) : graphs_(std::make_unique<Graphs>()) {
  graphs_->deterministic = deterministic;
}

CudnnAttentions::~CudnnAttentions() {
  graphs_->forward.clear();
  graphs_->backward.clear();
  if (graphs_->handle != nullptr) cudnnDestroy(graphs_->handle);
}

std::size_t CudnnAttentions::prepare(const Forward& problem) {
  const AttentionShape& shape = problem.shape;
  std::shared_ptr<fe::graph::Graph>& built = graphs_->forward[problem];
  if (built == nullptr) {
    const auto graph = graphs_->new_graph();
    const auto q = input(*graph, "q", kQ, shape, shape.heads, problem.q),
               k = input(*graph, "k", kK, shape, shape.kv_heads, problem.k),
               v = input(*graph, "v", kV, shape, shape.kv_heads, problem.v);
    auto options = fe::graph::SDPA_attributes()
                       .set_name("attention")
                       .set_generate_stats(true)
                       .set_causal_mask(true)
                       .set_attn_scale(scale_of(shape));
    auto [out, stats] = graph->sdpa(q, k, v, options);
    set_heads(out->set_output(true), kO, shape, shape.heads, contiguous(shape));
    set_stats(stats->set_output(true), shape);
    graphs_->build(*graph, "forward", shape);
    built = graph;
  }
  return Graphs::workspace_bytes(*built, "forward", shape);
}

std::size_t CudnnAttentions::prepare(const Backward& problem) {
  const AttentionShape& shape = problem.forward.shape;
  std::shared_ptr<fe::graph::Graph>& built = graphs_->backward[problem];
  if (built == nullptr) {
    const auto graph = graphs_->new_graph();
    const auto q = input(*graph, "q", kQ, shape, shape.heads, problem.forward.q),
               k = input(*graph, "k", kK, shape, shape.kv_heads, problem.forward.k),
               v = input(*graph, "v", kV, shape, shape.kv_heads, problem.forward.v),
               out = input(*graph, "o", kO, shape, shape.heads, contiguous(shape)),
               dout = input(*graph, "do", kDO, shape, shape.heads, contiguous(shape));
    Tensor_attributes stats_attributes;
    set_stats(stats_attributes, shape);
    const auto stats = graph->tensor(stats_attributes.set_name("stats"));
    auto options = fe::graph::SDPA_backward_attributes()
                       .set_name("attention backward")
                       .set_causal_mask(true)
                       .set_attn_scale(scale_of(shape))
                       .set_deterministic_algorithm(graphs_->deterministic);
    auto [dq, dk, dv] = graph->sdpa_backward(q, k, v, out, dout, stats, options);
    set_heads(dq->set_output(true), kDQ, shape, shape.heads, problem.dq);
    set_heads(dk->set_output(true), kDK, shape, shape.kv_heads, problem.dk);
    set_heads(dv->set_output(true), kDV, shape, shape.kv_heads, problem.dv);
    graphs_->build(*graph, "backward", shape);
    built = graph;
  }
  return Graphs::workspace_bytes(*built, "backward", shape);
}

void CudnnAttentions::run(cudaStream_t stream, const Forward& problem, void* out, float* stats, const void* q,
                          const void* k, const void* v, void* workspace) {
  graphs_->execute(
      graphs_->forward, problem, "forward", problem.shape, stream,
      {{kQ, const_cast<void*>(q)}, {kK, const_cast<void*>(k)}, {kV, const_cast<void*>(v)}, {kO, out}, {kStats, stats}},
      workspace);
}

void CudnnAttentions::run(cudaStream_t stream, const Backward& problem, void* dq, void* dk, void* dv, const void* dout,
                          const void* q, const void* k, const void* v, const void* out, const float* stats,
                          void* workspace) {
  graphs_->execute(graphs_->backward, problem, "backward", problem.forward.shape, stream,
                   {{kQ, const_cast<void*>(q)},
                    {kK, const_cast<void*>(k)},
                    {kV, const_cast<void*>(v)},
                    {kO, const_cast<void*>(out)},
                    {kDO, const_cast<void*>(dout)},
                    {kStats, const_cast<float*>(stats)},
                    {kDQ, dq},
                    {kDK, dk},
                    {kDV, dv}},
                   workspace);
}

}  // namespace strake::kernels::cuda
