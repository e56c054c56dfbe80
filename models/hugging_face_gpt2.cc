#include "models/hugging_face_gpt2.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/layer_norm.h"
#include "models/transformer.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::models {
namespace {

using Json = nlohmann::json;

struct Renaming {
  std::string_view ours, theirs;
  bool transposed;
};
// Of what stands behind "h.N.".
constexpr Renaming kBlock[] = {
    {"attn.qkv.weight", "attn.c_attn.weight", true},  {"attn.qkv.bias", "attn.c_attn.bias", false},
    {"attn.proj.weight", "attn.c_proj.weight", true}, {"attn.proj.bias", "attn.c_proj.bias", false},
    {"mlp.fc.weight", "mlp.c_fc.weight", true},       {"mlp.fc.bias", "mlp.c_fc.bias", false},
    {"mlp.proj.weight", "mlp.c_proj.weight", true},   {"mlp.proj.bias", "mlp.c_proj.bias", false},
};

// "h.12." of "h.12.attn.qkv.weight"; empty outside the blocks.
std::string_view block_of(std::string_view name) {
  if (!name.starts_with("h.")) return {};
  const std::size_t end = name.find_first_not_of("0123456789", 2);
  return end == name.npos || end == 2 || name[end] != '.' ? std::string_view() : name.substr(0, end + 1);
}

// target[j * rows + i] = source[i * columns + j], in squares that stay in the cache.
void transpose(const float* source, std::int64_t rows, std::int64_t columns, float* target) {
  constexpr std::int64_t kSide = 32;
  for (std::int64_t i0 = 0; i0 < rows; i0 += kSide) {
    for (std::int64_t j0 = 0; j0 < columns; j0 += kSide) {
      for (std::int64_t i = i0; i < std::min(rows, i0 + kSide); ++i) {
        for (std::int64_t j = j0; j < std::min(columns, j0 + kSide); ++j)
          target[j * rows + i] = source[i * columns + j];
      }
    }
  }
}

// Takes keys of a config.json and collects what does not fit.
class ConfigKeys {
 public:
  ConfigKeys(const Json& object, const std::string& where) : object_(object), where_(where) {}

  std::int64_t integer(const char* key, std::int64_t most) {
    const auto found = object_.find(key);
    if (found == object_.end()) {
      problems_.push_back(fmt::format("{} is missing", key));
    } else if (!found->is_number_unsigned() || found->get<std::uint64_t>() < 1 ||
               found->get<std::uint64_t>() > static_cast<std::uint64_t>(most)) {
      problems_.push_back(fmt::format("{} is {}, possible is 1 to {}", key, shown(*found), most));
    } else {
      return static_cast<std::int64_t>(found->get<std::uint64_t>());
    }
    return 1;
  }
  // An absent key means the first of the possible values, which is Hugging Face's own default.
  void one_of(const char* key, std::initializer_list<Json> possible) {
    const auto found = object_.find(key);
    if (found == object_.end() || std::find(possible.begin(), possible.end(), *found) != possible.end()) return;
    std::vector<std::string> texts;
    for (const Json& value : possible) texts.push_back(value.dump());
    problems_.push_back(fmt::format("{} is {}, possible is {}", key, shown(*found), fmt::join(texts, " or ")));
  }
  void problem(std::string text) { problems_.push_back(std::move(text)); }
  bool sound() const { return problems_.empty(); }
  void finish() const {
    if (problems_.empty()) return;
    throw IncompatibleCheckpointError(
        fmt::format("{}: describes a model that cannot be imported: {}; only GPT-2 as it was published can be", where_,
                    fmt::join(problems_, "; ")));
  }

 private:
  static std::string shown(const Json& value) {
    std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    return text.size() > 60 ? text.substr(0, 60) + "..." : text;
  }

  const Json& object_;
  const std::string& where_;
  std::vector<std::string> problems_;
};

}  // namespace

std::int64_t HuggingFaceTensor::elems() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) product *= extent;
  return product;
}

std::vector<HuggingFaceTensor> hugging_face_tensors(const TransformerShape& shape) {
  const ParamLayout layout = parameters_of(shape);
  const std::vector<ParamSpec>& specs = layout.specs();
  std::vector<HuggingFaceTensor> tensors;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    HuggingFaceTensor tensor{specs[i].name, specs[i].global_shape, ParamId{static_cast<std::int32_t>(i)},
                             /*transposed=*/false};
    if (tensor.name == "wte.weight") tensor.shape.front() = shape.vocab;
    const std::string block(block_of(tensor.name));
    for (const Renaming& renaming : kBlock) {
      if (block.empty() || std::string_view(tensor.name).substr(block.size()) != renaming.ours) continue;
      tensor.name = fmt::format("{}{}", block, renaming.theirs);
      tensor.transposed = renaming.transposed;
      if (renaming.transposed) std::swap(tensor.shape[0], tensor.shape[1]);
      break;
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

bool is_hugging_face_mask(std::string_view name) {
  const std::string_view block = block_of(name);
  const std::string_view rest = name.substr(block.size());
  return !block.empty() && (rest == "attn.bias" || rest == "attn.masked_bias");
}

void from_hugging_face(const HuggingFaceTensor& tensor, std::span<const float> theirs, std::span<float> ours) {
  STRAKE_CHECK(static_cast<std::int64_t>(theirs.size()) == tensor.elems() && theirs.size() <= ours.size(),
               "sizes of " + tensor.name);
  if (tensor.transposed) {
    transpose(theirs.data(), tensor.shape[0], tensor.shape[1], ours.data());
  } else {
    std::copy(theirs.begin(), theirs.end(), ours.begin());
  }
  std::fill(ours.begin() + static_cast<std::ptrdiff_t>(theirs.size()), ours.end(), 0.0f);
}

void to_hugging_face(const HuggingFaceTensor& tensor, std::span<const float> ours, std::span<float> theirs) {
  STRAKE_CHECK(static_cast<std::int64_t>(theirs.size()) == tensor.elems() && theirs.size() <= ours.size(),
               "sizes of " + tensor.name);
  if (tensor.transposed) {
    transpose(ours.data(), tensor.shape[1], tensor.shape[0], theirs.data());
  } else {
    std::copy_n(ours.begin(), theirs.size(), theirs.begin());
  }
}

TransformerShape shape_from_hugging_face(std::string_view config, const std::string& where) {
  const Json object = Json::parse(config, nullptr, false);
  if (!object.is_object()) throw IncompatibleCheckpointError(fmt::format("{}: is no JSON object; get it again", where));
  ConfigKeys keys(object, where);
  if (!object.contains("model_type")) keys.problem("model_type is missing, possible is \"gpt2\"");
  keys.one_of("model_type", {"gpt2"});
  const std::int64_t layers = keys.integer("n_layer", 1000), channels = keys.integer("n_embd", 1 << 20);
  const std::int64_t heads = keys.integer("n_head", 1 << 12), vocab = keys.integer("vocab_size", 1 << 24);
  const TransformerShape shape = gpt2_shape(layers, channels, heads, vocab, keys.integer("n_positions", 1 << 24));
  if (keys.sound() && shape.channels % shape.heads != 0) {
    keys.problem(fmt::format("n_embd is {}, no multiple of n_head = {}", shape.channels, shape.heads));
  }
  keys.one_of("n_inner", {nullptr, 4 * shape.channels});
  keys.one_of("activation_function", {"gelu_new", "gelu_pytorch_tanh"});  // two names of the tanh form
  keys.one_of("layer_norm_epsilon", {kernels::kLayerNormEpsilon});
  keys.one_of("scale_attn_weights", {true});
  keys.one_of("scale_attn_by_inverse_layer_idx", {false});
  keys.one_of("add_cross_attention", {false});
  keys.one_of("tie_word_embeddings", {true});
  keys.finish();
  return shape;
}

std::string hugging_face_config(const TransformerShape& shape, DType dtype, std::int64_t end_of_text) {
  const Json end = end_of_text < 0 ? Json() : Json(end_of_text);
  return nlohmann::ordered_json{{"architectures", {"GPT2LMHeadModel"}},
                                {"model_type", "gpt2"},
                                {"n_layer", shape.layers},
                                {"n_embd", shape.channels},
                                {"n_head", shape.heads},
                                {"n_inner", nullptr},
                                {"n_positions", shape.sequence},
                                {"vocab_size", shape.vocab},
                                {"activation_function", "gelu_new"},
                                {"layer_norm_epsilon", kernels::kLayerNormEpsilon},
                                {"scale_attn_weights", true},
                                {"scale_attn_by_inverse_layer_idx", false},
                                {"tie_word_embeddings", true},
                                {"attn_pdrop", 0.0},
                                {"embd_pdrop", 0.0},
                                {"resid_pdrop", 0.0},
                                {"bos_token_id", end},
                                {"eos_token_id", end},
                                {"torch_dtype", dtype == DType::kBF16 ? "bfloat16" : "float32"}}
             .dump(2) +
         "\n";
}

}  // namespace strake::models
