#include "kernels/cuda/attention.h"

#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <cmath>
#include <unordered_map>

#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::kernels::cuda {
namespace {

namespace fe = cudnn_frontend;

// Names of the graph's tensors.
enum Uid : std::int64_t { kQ = 1, kK, kV, kO, kStats, kDO, kDQ, kDK, kDV };

std::string describe(fe::error_t error, const char* what, const AttentionShape& shape) {
  return fmt::format("cuDNN {}: attention {} of batch {}, {} tokens, {} heads of {}: {}", cudnnGetVersion(), what,
                     shape.batch, shape.sequence, shape.heads, shape.head_size, error.get_message());
}

void require(const fe::error_t& error, const char* what, const AttentionShape& shape) {
  if (!error.is_good()) [[unlikely]]
    throw DeviceError(describe(error, what, shape));
}

}  // namespace

struct Attentions::Graphs {
  cudnnHandle_t handle = nullptr;
  bool deterministic = false;
  std::map<AttentionShape, std::shared_ptr<fe::graph::Graph>> forward, backward;

  std::shared_ptr<fe::graph::Graph> new_graph() const {
    auto graph = std::make_shared<fe::graph::Graph>();
    graph->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    return graph;
  }
  // [B, H, T, D] seen in a [B, T, parts, H, D] buffer; the part is chosen by the address.
  static auto view(fe::graph::Graph& graph, const char* name, Uid uid, const AttentionShape& s, std::int64_t parts) {
    const std::int64_t row = parts * s.heads * s.head_size;
    return graph.tensor(fe::graph::Tensor_attributes()
                            .set_name(name)
                            .set_uid(uid)
                            .set_dim({s.batch, s.heads, s.sequence, s.head_size})
                            .set_stride({s.sequence * row, s.head_size, row, 1}));
  }
  static void set_output(const std::shared_ptr<fe::graph::Tensor_attributes>& tensor, Uid uid, const AttentionShape& s,
                         std::int64_t parts) {
    const std::int64_t row = parts * s.heads * s.head_size;
    tensor->set_output(true)
        .set_uid(uid)
        .set_dim({s.batch, s.heads, s.sequence, s.head_size})
        .set_stride({s.sequence * row, s.head_size, row, 1});
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
};

Attentions::Attentions(bool deterministic) : graphs_(std::make_unique<Graphs>()) {
  graphs_->deterministic = deterministic;
}

Attentions::~Attentions() {
  graphs_->forward.clear();
  graphs_->backward.clear();
  if (graphs_->handle != nullptr) cudnnDestroy(graphs_->handle);
}

std::size_t Attentions::prepare_forward(const AttentionShape& shape) {
  if (graphs_->handle == nullptr && cudnnCreate(&graphs_->handle) != CUDNN_STATUS_SUCCESS) {
    throw DeviceError("cudnnCreate failed: is cuDNN 9 installed beside the CUDA toolkit?");
  }
  std::shared_ptr<fe::graph::Graph>& built = graphs_->forward[shape];
  if (built == nullptr) {
    const auto graph = graphs_->new_graph();
    const auto q = Graphs::view(*graph, "q", kQ, shape, 3), k = Graphs::view(*graph, "k", kK, shape, 3),
               v = Graphs::view(*graph, "v", kV, shape, 3);
    auto options = fe::graph::SDPA_attributes()
                       .set_name("attention")
                       .set_generate_stats(true)
                       .set_causal_mask(true)
                       .set_attn_scale(1.0f / std::sqrt(static_cast<float>(shape.head_size)));
    auto [out, stats] = graph->sdpa(q, k, v, options);
    Graphs::set_output(out, kO, shape, 1);
    stats->set_output(true)
        .set_uid(kStats)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim({shape.batch, shape.heads, shape.sequence, 1})
        .set_stride({shape.heads * shape.sequence, shape.sequence, 1, 1});
    graphs_->build(*graph, "forward", shape);
    built = graph;
  }
  std::int64_t workspace_bytes = 0;
  require(built->get_workspace_size(workspace_bytes), "forward", shape);
  return static_cast<std::size_t>(workspace_bytes);
}

std::size_t Attentions::prepare_backward(const AttentionShape& shape) {
  prepare_forward(shape);
  std::shared_ptr<fe::graph::Graph>& built = graphs_->backward[shape];
  if (built == nullptr) {
    const auto graph = graphs_->new_graph();
    const auto q = Graphs::view(*graph, "q", kQ, shape, 3), k = Graphs::view(*graph, "k", kK, shape, 3),
               v = Graphs::view(*graph, "v", kV, shape, 3), out = Graphs::view(*graph, "o", kO, shape, 1),
               dout = Graphs::view(*graph, "do", kDO, shape, 1);
    const auto stats = graph->tensor(fe::graph::Tensor_attributes()
                                         .set_name("stats")
                                         .set_uid(kStats)
                                         .set_data_type(fe::DataType_t::FLOAT)
                                         .set_dim({shape.batch, shape.heads, shape.sequence, 1})
                                         .set_stride({shape.heads * shape.sequence, shape.sequence, 1, 1}));
    auto options = fe::graph::SDPA_backward_attributes()
                       .set_name("attention backward")
                       .set_causal_mask(true)
                       .set_attn_scale(1.0f / std::sqrt(static_cast<float>(shape.head_size)))
                       .set_deterministic_algorithm(graphs_->deterministic);
    auto [dq, dk, dv] = graph->sdpa_backward(q, k, v, out, dout, stats, options);
    Graphs::set_output(dq, kDQ, shape, 3);
    Graphs::set_output(dk, kDK, shape, 3);
    Graphs::set_output(dv, kDV, shape, 3);
    graphs_->build(*graph, "backward", shape);
    built = graph;
  }
  std::int64_t workspace_bytes = 0;
  require(built->get_workspace_size(workspace_bytes), "backward", shape);
  return static_cast<std::size_t>(workspace_bytes);
}

namespace {

// Part 0, 1, 2 (q, k, v) of a packed bf16 buffer.
void* part(const void* packed, int index, const AttentionShape& shape) {
  return static_cast<char*>(const_cast<void*>(packed)) + index * shape.heads * shape.head_size * 2;
}

}  // namespace

void Attentions::forward(cudaStream_t stream, const AttentionShape& shape, void* out, float* stats, const void* qkv,
                         void* workspace) {
  const auto found = graphs_->forward.find(shape);
  STRAKE_CHECK(found != graphs_->forward.end(), "attention was not planned");
  STRAKE_CHECK(cudnnSetStream(graphs_->handle, stream) == CUDNN_STATUS_SUCCESS, "cudnnSetStream");
  std::unordered_map<std::int64_t, void*> tensors{
      {kQ, part(qkv, 0, shape)}, {kK, part(qkv, 1, shape)}, {kV, part(qkv, 2, shape)}, {kO, out}, {kStats, stats}};
  require(found->second->execute(graphs_->handle, tensors, workspace), "forward", shape);
}

void Attentions::backward(cudaStream_t stream, const AttentionShape& shape, void* dqkv, const void* dout,
                          const void* qkv, const void* out, const float* stats, void* workspace) {
  const auto found = graphs_->backward.find(shape);
  STRAKE_CHECK(found != graphs_->backward.end(), "attention was not planned");
  STRAKE_CHECK(cudnnSetStream(graphs_->handle, stream) == CUDNN_STATUS_SUCCESS, "cudnnSetStream");
  std::unordered_map<std::int64_t, void*> tensors{
      {kQ, part(qkv, 0, shape)},    {kK, part(qkv, 1, shape)},      {kV, part(qkv, 2, shape)},
      {kO, const_cast<void*>(out)}, {kDO, const_cast<void*>(dout)}, {kStats, const_cast<float*>(stats)},
      {kDQ, part(dqkv, 0, shape)},  {kDK, part(dqkv, 1, shape)},    {kDV, part(dqkv, 2, shape)}};
  require(found->second->execute(graphs_->handle, tensors, workspace), "backward", shape);
}

}  // namespace strake::kernels::cuda
