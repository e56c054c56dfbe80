#include "models/formats/hugging_face.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <set>

#include "models/transformer.h"
#include "runtime/base/error.h"

namespace strake::models {
namespace {

using Json = nlohmann::json;
using Floats = std::vector<float>;

const TransformerShape kGpt2 = gpt2_shape(11, 40, 4, 50, 6);

TransformerShape llama(std::int64_t heads, std::int64_t kv_heads, bool tied, Biases biases = Biases::kNone) {
  return {.layers = 2,
          .channels = 24,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_size = 4,
          .mlp_channels = 20,
          .vocab = 50,
          .sequence = 6,
          .norm = Norm::kRms,
          .norm_epsilon = 1e-6,
          .positions = Positions::kRotary,
          .rotary_base = 500000,
          .mlp = Mlp::kSwiglu,
          .biases = biases,
          .tied_head = tied};
}

std::vector<TransformerShape> shapes() {
  return {kGpt2, llama(6, 2, false), llama(5, 1, true), llama(9, 3, true, Biases::kQkv), llama(3, 3, false)};
}

const ForeignTensor& named(const std::vector<ForeignTensor>& tensors, const std::string& name) {
  const auto found = std::ranges::find(tensors, name, &ForeignTensor::name);
  if (found == tensors.end()) throw std::out_of_range(name);
  return *found;
}

std::set<std::string> names_of(const std::vector<ForeignTensor>& tensors) {
  std::set<std::string> names;
  for (const ForeignTensor& tensor : tensors) names.insert(tensor.name);
  return names;
}

TEST(HuggingFace, NamesOfGpt2) {
  const std::vector<ForeignTensor> tensors = hugging_face_tensors(kGpt2);
  std::set<std::string> expected{"wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"};
  for (int layer = 0; layer < 11; ++layer) {
    for (const char* name : {"ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"}) {
      expected.insert("h." + std::to_string(layer) + "." + name + ".weight");
      expected.insert("h." + std::to_string(layer) + "." + name + ".bias");
    }
  }
  EXPECT_EQ(names_of(tensors), expected);
  EXPECT_EQ(tensors.size(), expected.size());
  EXPECT_EQ(named(tensors, "h.10.mlp.c_fc.weight").shape, (std::vector<std::int64_t>{40, 160}));
  EXPECT_EQ(named(tensors, "wte.weight").shape, (std::vector<std::int64_t>{50, 40}));
  EXPECT_EQ(with_hugging_face_prefix(kGpt2, "wte.weight"), "transformer.wte.weight");
  EXPECT_EQ(without_hugging_face_prefix(kGpt2, "transformer.wte.weight"), "wte.weight");
  EXPECT_EQ(without_hugging_face_prefix(kGpt2, "wte.weight"), "wte.weight");
  EXPECT_EQ(token_table_of(tensors, kGpt2).name, "wte.weight");
}

TEST(HuggingFace, NamesOfLlamaAndQwen2) {
  for (const Biases biases : {Biases::kNone, Biases::kQkv}) {
    for (const bool tied : {false, true}) {
      const TransformerShape shape = llama(6, 2, tied, biases);
      const std::vector<ForeignTensor> tensors = hugging_face_tensors(shape);
      std::set<std::string> expected{"embed_tokens.weight", "norm.weight"};
      if (!tied) expected.insert("lm_head.weight");
      for (const char* layer : {"layers.0.", "layers.1."}) {
        for (const char* name :
             {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
              "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
          expected.insert(layer + std::string(name) + ".weight");
        }
        for (const char* name : {"q", "k", "v"}) {
          if (biases == Biases::kQkv) expected.insert(layer + std::string("self_attn.") + name + "_proj.bias");
        }
      }
      EXPECT_EQ(names_of(tensors), expected);
      EXPECT_EQ(tensors.size(), expected.size());
      EXPECT_EQ(named(tensors, "layers.1.self_attn.k_proj.weight").shape, (std::vector<std::int64_t>{8, 24}));
      EXPECT_EQ(named(tensors, "layers.1.mlp.down_proj.weight").shape, (std::vector<std::int64_t>{24, 20}));
      EXPECT_EQ(with_hugging_face_prefix(shape, "norm.weight"), "model.norm.weight");
      EXPECT_EQ(with_hugging_face_prefix(shape, "lm_head.weight"), "lm_head.weight");
      EXPECT_EQ(token_table_of(tensors, shape).name, "embed_tokens.weight");
    }
  }
}

TEST(HuggingFace, NamesNothingThatNoFamilyHas) {
  TransformerShape shape = kGpt2;
  shape.positions = Positions::kRotary;
  EXPECT_THROW(hugging_face_tensors(shape), IncompatibleCheckpointError);
}

// All elements of all parameters are taken once, padding rows not, and come back equal.
TEST(HuggingFace, TakesEveryElementOnceAndGivesItBack) {
  for (const TransformerShape& shape : shapes()) {
    const ParamLayout layout = parameters_of(shape);
    std::vector<Floats> ours;
    for (const ParamSpec& spec : layout.specs()) ours.emplace_back(static_cast<std::size_t>(spec.elems()), -1.0f);
    const std::vector<ForeignTensor> tensors = hugging_face_tensors(shape);
    std::vector<Floats> theirs;
    float next = 0;  // exact: there are fewer than 2^24
    for (const ForeignTensor& tensor : tensors) {
      theirs.emplace_back(static_cast<std::size_t>(tensor.elems()));
      for (float& value : theirs.back()) value = next++;
      copy_from(tensor, layout.spec(tensor.param), theirs.back(), ours[index_of(tensor.param)]);
    }
    std::set<float> seen;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const ParamSpec& spec = layout.specs()[i];
      const bool padded = spec.name == "wte.weight" || spec.name == "head.weight";
      const auto used = static_cast<std::size_t>(padded ? shape.vocab * shape.channels : spec.elems());
      for (std::size_t e = 0; e < ours[i].size(); ++e) {
        if (e >= used) {
          ASSERT_EQ(ours[i][e], -1.0f) << "padding of " << spec.name;
        } else {
          ASSERT_GE(ours[i][e], 0.0f) << spec.name << " " << e;
          ASSERT_TRUE(seen.insert(ours[i][e]).second) << spec.name << " " << e;
        }
      }
    }
    EXPECT_EQ(seen.size(), static_cast<std::size_t>(next));
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      Floats back(theirs[i].size());
      copy_to(tensors[i], layout.spec(tensors[i].param), ours[index_of(tensors[i].param)], back);
      ASSERT_EQ(back, theirs[i]) << tensors[i].name;
    }
  }
}

// Where an element of theirs lies in ours.
class Placement : public testing::Test {
 protected:
  explicit Placement(const TransformerShape& shape) : shape_(shape) {}
  void take(const std::string& name) {
    const std::vector<ForeignTensor> tensors = hugging_face_tensors(shape_);
    const ForeignTensor& tensor = named(tensors, name);
    const ParamLayout layout = parameters_of(shape_);
    const ParamSpec& spec = layout.spec(tensor.param);
    theirs_.resize(static_cast<std::size_t>(tensor.elems()));
    std::iota(theirs_.begin(), theirs_.end(), 1.0f);
    ours_.assign(static_cast<std::size_t>(spec.elems()), -1.0f);
    copy_from(tensor, spec, theirs_, ours_);
  }
  float theirs(std::int64_t i) const { return theirs_[static_cast<std::size_t>(i)]; }
  float ours(std::int64_t i) const { return ours_[static_cast<std::size_t>(i)]; }

  TransformerShape shape_;
  Floats theirs_, ours_;
};

struct LlamaPlacement : Placement {
  LlamaPlacement() : Placement(llama(6, 2, false, Biases::kQkv)) {}
};

// By kv group: its queries, its key, its value.
TEST_F(LlamaPlacement, QueriesKeysAndValuesByGroup) {
  const std::int64_t c = shape_.channels, d = shape_.head_size, in_group = shape_.heads / shape_.kv_heads;
  const std::int64_t group_rows = (in_group + 2) * d;
  const auto our_row = [&](int part, std::int64_t head) {  // of its first channel
    const std::int64_t group = part == 0 ? head / in_group : head;
    const std::int64_t behind = part == 0 ? head % in_group : in_group + part - 1;
    return group * group_rows + behind * d;
  };
  for (int part = 0; part < 3; ++part) {
    const std::string name = std::string("layers.1.self_attn.") + "qkv"[part] + "_proj";
    const std::int64_t heads = part == 0 ? shape_.heads : shape_.kv_heads;
    take(name + ".weight");
    for (std::int64_t row = 0; row < heads * d; ++row) {
      for (std::int64_t column = 0; column < c; ++column) {
        ASSERT_EQ(ours((our_row(part, row / d) + row % d) * c + column), theirs(row * c + column)) << name << row;
      }
    }
    take(name + ".bias");
    for (std::int64_t row = 0; row < heads * d; ++row)
      ASSERT_EQ(ours(our_row(part, row / d) + row % d), theirs(row)) << name << row;
  }
}

TEST_F(LlamaPlacement, GateAndUpInTurn) {
  const std::int64_t c = shape_.channels;
  for (const bool up : {false, true}) {
    take(up ? "layers.0.mlp.up_proj.weight" : "layers.0.mlp.gate_proj.weight");
    for (std::int64_t m = 0; m < shape_.mlp_channels; ++m) {
      for (std::int64_t column = 0; column < c; ++column)
        ASSERT_EQ(ours((2 * m + (up ? 1 : 0)) * c + column), theirs(m * c + column));
    }
  }
}

TEST_F(LlamaPlacement, WhatIsCutByInputIsStoredInOut) {
  const std::int64_t c = shape_.channels;
  for (const auto& [name, ins] : {std::pair{"layers.0.self_attn.o_proj.weight", shape_.query_channels()},
                                  std::pair{"layers.0.mlp.down_proj.weight", shape_.mlp_channels}}) {
    take(name);
    for (std::int64_t out = 0; out < c; ++out) {
      for (std::int64_t in = 0; in < ins; ++in) ASSERT_EQ(ours(in * c + out), theirs(out * ins + in)) << name;
    }
  }
}

struct Gpt2Placement : Placement {
  Gpt2Placement() : Placement(kGpt2) {}
};

TEST_F(Gpt2Placement, QueriesKeysAndValuesByHead) {
  const std::int64_t c = shape_.channels, d = shape_.head_size;
  take("h.3.attn.c_attn.weight");
  for (std::int64_t in = 0; in < c; ++in) {
    for (std::int64_t out = 0; out < 3 * c; ++out) {
      const std::int64_t part = out / c, head = out % c / d;
      ASSERT_EQ(ours((head * 3 * d + part * d + out % d) * c + in), theirs(in * 3 * c + out)) << in << " " << out;
    }
  }
  take("h.3.attn.c_attn.bias");
  for (std::int64_t out = 0; out < 3 * c; ++out) {
    const std::int64_t part = out / c, head = out % c / d;
    ASSERT_EQ(ours(head * 3 * d + part * d + out % d), theirs(out)) << out;
  }
}

TEST_F(Gpt2Placement, Projections) {
  const std::int64_t c = shape_.channels, m = shape_.mlp_channels;
  take("h.3.mlp.c_fc.weight");
  for (std::int64_t in = 0; in < c; ++in) {
    for (std::int64_t out = 0; out < m; ++out) ASSERT_EQ(ours(out * c + in), theirs(in * m + out));
  }
  for (const char* name : {"h.3.attn.c_proj.weight", "h.3.mlp.c_proj.weight"}) {
    take(name);
    ASSERT_EQ(ours_, theirs_) << name;
  }
}

TEST(HuggingFace, KnowsWhatIsNoWeight) {
  for (const char* name : {"h.0.attn.bias", "h.11.attn.masked_bias", "layers.3.self_attn.rotary_emb.inv_freq"}) {
    EXPECT_TRUE(is_hugging_face_buffer(name)) << name;
  }
  for (const char* name :
       {"h.0.attn.c_attn.bias", "attn.bias", "h.attn.bias", "h.x.attn.bias", "h.0.mlp.bias", "h.", "layers.3."}) {
    EXPECT_FALSE(is_hugging_face_buffer(name)) << name;
  }
}

TEST(HuggingFace, ConfigThereAndBack) {
  std::vector<TransformerShape> all = shapes();
  all.push_back(llama(6, 2, false));
  all.back().rotary_scaling = RotaryScaling{32, 1, 4, 8192};
  for (const TransformerShape& shape : all) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const std::string config = hugging_face_config(shape, dtype, 49);
      EXPECT_EQ(shape_from_hugging_face(config, "config.json"), shape) << config;
    }
  }
  const auto json = Json::parse(hugging_face_config(kGpt2, DType::kBF16, -1));
  EXPECT_EQ(json.at("torch_dtype"), "bfloat16");
  EXPECT_TRUE(json.at("eos_token_id").is_null());
  EXPECT_EQ(json.at("resid_pdrop"), 0.0);
  const auto architecture = [](const TransformerShape& shape) {
    return Json::parse(hugging_face_config(shape, DType::kF32, -1)).at("architectures").at(0).get<std::string>();
  };
  EXPECT_EQ(architecture(kGpt2), "GPT2LMHeadModel");
  EXPECT_EQ(architecture(llama(6, 2, false)), "LlamaForCausalLM");
  EXPECT_EQ(architecture(llama(6, 2, false, Biases::kQkv)), "Qwen2ForCausalLM");
}

// Only what is needed; all else at Hugging Face's defaults.
Json least_gpt2() {
  return {{"model_type", "gpt2"}, {"n_layer", 11},    {"n_embd", 40},
          {"n_head", 4},          {"vocab_size", 50}, {"n_positions", 6}};
}
Json least(const char* model_type) {
  return {{"model_type", model_type},    {"num_hidden_layers", 2},  {"hidden_size", 24},
          {"num_attention_heads", 6},    {"intermediate_size", 20}, {"vocab_size", 50},
          {"max_position_embeddings", 6}};
}
Json with(Json config, const char* key, const Json& value) {
  config[key] = value;
  return config;
}

std::string refusal(const Json& config) {
  try {
    shape_from_hugging_face(config.dump(), "here/config.json");
    return "none";
  } catch (const IncompatibleCheckpointError& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("here/config.json: ")) << error.what();
    return error.what();
  }
}
TransformerShape read(const Json& config) { return shape_from_hugging_face(config.dump(), "config.json"); }

TEST(HuggingFaceConfig, AbsentKeysMeanTheDefaultsOfTheFamily) {
  EXPECT_EQ(read(least_gpt2()), kGpt2);
  TransformerShape expected = llama(6, 6, false);
  expected.rotary_base = 10000;
  EXPECT_EQ(read(least("llama")), expected);
  EXPECT_EQ(read(with(with(least("mistral"), "sliding_window", nullptr), "num_key_value_heads", nullptr)), expected);
  EXPECT_EQ(read(with(with(least("mistral"), "num_attention_heads", 8), "head_dim", 4)).kv_heads, 8);
  expected.biases = Biases::kQkv;
  EXPECT_EQ(read(with(least("qwen2"), "num_key_value_heads", 6)), expected);
  EXPECT_NE(refusal(least("qwen2")).find("num_key_value_heads = 32"), std::string::npos);
}

TEST(HuggingFaceConfig, KeysThatAreGivenCount) {
  Json config = least("llama");
  config.update({{"num_key_value_heads", 2},
                 {"head_dim", 16},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 500000},
                 {"tie_word_embeddings", true},
                 {"attention_bias", false},
                 {"mlp_bias", false},
                 {"hidden_act", "silu"},
                 {"attention_dropout", 0.5},
                 {"pretraining_tp", 2}});
  const TransformerShape shape = read(config);
  EXPECT_EQ(shape.kv_heads, 2);
  EXPECT_EQ(shape.head_size, 16);
  EXPECT_EQ(shape.norm_epsilon, 1e-5);
  EXPECT_EQ(shape.rotary_base, 500000);
  EXPECT_TRUE(shape.tied_head);
  EXPECT_EQ(shape.biases, Biases::kNone);
}

TEST(HuggingFaceConfig, AGpt2OfItsOwnWidthAndEpsilonComesBack) {
  TransformerShape shape = gpt2_shape(2, 40, 4, 100, 8);
  shape.mlp_channels = 80;
  shape.norm_epsilon = 1e-6;
  EXPECT_EQ(read(Json::parse(hugging_face_config(shape, DType::kF32, -1))), shape);
  const TransformerShape plain =
      read(with(with(Json::parse(hugging_face_config(shape, DType::kF32, -1)), "n_inner", nullptr),
                "layer_norm_epsilon", nullptr));
  EXPECT_EQ(plain, gpt2_shape(2, 40, 4, 100, 8));
}

TEST(HuggingFaceConfig, RotaryScalingInEveryDress) {
  const RotaryScaling expected{8, 1, 4, 8192};
  const Json values{
      {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  for (const char* key : {"type", "rope_type"}) {
    Json scaling = values;
    scaling[key] = "llama3";
    const TransformerShape old = read(with(with(least("llama"), "rope_scaling", scaling), "rope_theta", 5e5));
    EXPECT_EQ(old.rotary_scaling, expected);
    EXPECT_EQ(old.rotary_base, 5e5);
    scaling["rope_theta"] = 3e5;
    const TransformerShape newer = read(with(least("llama"), "rope_parameters", scaling));
    EXPECT_EQ(newer.rotary_scaling, expected);
    EXPECT_EQ(newer.rotary_base, 3e5);
  }
  const TransformerShape plain =
      read(with(least("llama"), "rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}}));
  EXPECT_EQ(plain.rotary_scaling, std::nullopt);
  EXPECT_EQ(plain.rotary_base, 1e6);
  EXPECT_EQ(read(with(least("llama"), "rope_scaling", nullptr)).rotary_scaling, std::nullopt);

  Json scaling = values;
  scaling["rope_type"] = "llama3";
  const auto refused = [&](const char* key, const Json& value) {
    return refusal(with(least("llama"), "rope_scaling", with(scaling, key, value)));
  };
  EXPECT_NE(refused("rope_type", "yarn").find("rope_scaling.rope_type is \"yarn\""), std::string::npos);
  EXPECT_NE(refused("type", "linear").find("rope_scaling.type is \"linear\""), std::string::npos);
  EXPECT_NE(refused("type", "default").find("rope_scaling.rope_type is \"llama3\", its older name type is \"default\""),
            std::string::npos);
  EXPECT_NE(refused("factor", 0).find("rope_scaling.factor is 0"), std::string::npos);
  EXPECT_NE(refused("high_freq_factor", 1)
                .find("rope_scaling.low_freq_factor is 1, possible is less than high_freq_factor = 1"),
            std::string::npos);
  EXPECT_NE(refused("attention_factor", 2).find("rope_scaling.attention_factor is not known"), std::string::npos);
  scaling.erase("original_max_position_embeddings");
  EXPECT_NE(refused("factor", 8).find("rope_scaling.original_max_position_embeddings is missing"), std::string::npos);
  EXPECT_NE(refusal(with(least("llama"), "rope_scaling", "llama3")).find("possible is null or an object"),
            std::string::npos);
  EXPECT_NE(refusal(with(with(least("llama"), "rope_theta", 1e4), "rope_parameters", {{"rope_theta", 1e5}}))
                .find("rope_theta is 10000, in rope_parameters 100000, possible is the same in both"),
            std::string::npos);
  const Json none{{"rope_type", "default"}};
  EXPECT_NE(
      refusal(with(with(least("llama"), "rope_parameters", none), "rope_scaling", with(none, "rope_type", "llama3")))
          .find("rope_scaling.factor is missing"),
      std::string::npos);
  scaling = with(with(values, "rope_type", "llama3"), "original_max_position_embeddings", 4096);
  EXPECT_NE(refusal(with(with(least("llama"), "rope_parameters", none), "rope_scaling", scaling))
                .find("rope_scaling is another scaling than rope_parameters says"),
            std::string::npos);
}

TEST(HuggingFaceConfig, AWindowIsRefusedUnlessItIsNone) {
  const Json mistral = with(with(least("mistral"), "num_key_value_heads", 2), "max_position_embeddings", 100);
  EXPECT_EQ(refusal(with(mistral, "sliding_window", nullptr)), "none");
  EXPECT_EQ(refusal(with(mistral, "sliding_window", 100)), "none");
  EXPECT_NE(refusal(with(mistral, "sliding_window", 99)).find("sliding_window is 99"), std::string::npos);
  const Json longer = with(mistral, "max_position_embeddings", 8192);
  EXPECT_NE(refusal(longer).find("sliding_window is 4096"), std::string::npos) << "Mistral's own default";
  const Json qwen2 = with(least("qwen2"), "num_key_value_heads", 2);
  EXPECT_EQ(refusal(with(qwen2, "sliding_window", 3)), "none") << "not used";
  EXPECT_NE(refusal(with(qwen2, "use_sliding_window", true)).find("use_sliding_window is true"), std::string::npos);
  EXPECT_EQ(refusal(with(qwen2, "layer_types", {"full_attention", "full_attention"})), "none");
  EXPECT_NE(refusal(with(qwen2, "layer_types", {"full_attention", "sliding_attention"})).find("layer_types is"),
            std::string::npos);
}

TEST(HuggingFaceConfig, RefusesWhatItWouldComputeOtherwise) {
  const struct {
    const char* key;
    Json value;
  } gpt2_cases[] = {{"model_type", "gpt_neo"},
                    {"n_layer", 0},
                    {"n_layer", 1.5},
                    {"n_layer", "11"},
                    {"n_embd", -40},
                    {"n_embd", 42},  // no multiple of 4 heads
                    {"n_embd", 18446744073709551615u},
                    {"n_inner", 0},
                    {"activation_function", "gelu"},
                    {"activation_function", "relu"},
                    {"layer_norm_epsilon", 0},
                    {"scale_attn_weights", false},
                    {"scale_attn_by_inverse_layer_idx", true},
                    {"add_cross_attention", true},
                    {"tie_word_embeddings", false}},
    llama_cases[] = {{"model_type", "phi3"},
                     {"num_hidden_layers", 0},
                     {"hidden_size", 25},  // no multiple of 6 heads
                     {"hidden_size", 18},  // an odd head size
                     {"num_attention_heads", -6},
                     {"num_key_value_heads", 4},
                     {"num_key_value_heads", "2"},
                     {"head_dim", 5},
                     {"head_dim", 0},
                     {"hidden_act", "gelu"},
                     {"rms_norm_eps", 0},
                     {"rms_norm_eps", "1e-6"},
                     {"rope_theta", -1},
                     {"attention_bias", true},
                     {"mlp_bias", true},
                     {"partial_rotary_factor", 0.5},
                     {"tie_word_embeddings", 1},
                     {"quantization_config", Json::object()}};
  for (const auto& [key, value] : gpt2_cases) {
    EXPECT_NE(refusal(with(least_gpt2(), key, value)).find(key), std::string::npos) << key << " = " << value;
  }
  for (const auto& [key, value] : llama_cases) {
    EXPECT_NE(refusal(with(least("llama"), key, value)).find(key), std::string::npos) << key << " = " << value;
  }
  for (const Json& config : {least_gpt2(), least("llama")}) {
    for (const auto& [key, value] : config.items()) {
      Json without = config;
      without.erase(key);
      EXPECT_NE(refusal(without).find(key + " is missing"), std::string::npos) << key;
    }
  }
  for (const char* text : {"", "[]", "{", "7"}) {
    EXPECT_THROW(shape_from_hugging_face(text, ""), IncompatibleCheckpointError) << text;
  }
}

TEST(HuggingFaceConfig, NamesAllProblemsAtOnce) {
  Json config = least_gpt2();
  config["activation_function"] = "relu";
  config["n_inner"] = -7;
  config.erase("n_head");
  const std::string gpt2 = refusal(config);
  for (const char* part : {"relu", "n_inner is -7", "n_head is missing"})
    EXPECT_NE(gpt2.find(part), std::string::npos) << gpt2;
  config = least("llama");
  config["hidden_act"] = "relu";
  config["attention_bias"] = true;
  config["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2}};
  config.erase("vocab_size");
  const std::string llama = refusal(config);
  for (const char* part :
       {"relu", "attention_bias is true", "rope_scaling.type is \"dynamic\"", "vocab_size is missing"})
    EXPECT_NE(llama.find(part), std::string::npos) << llama;
}

// Every damaged config is read as some model of sane sizes, or refused; nothing else.
TEST(HuggingFaceConfig, DamagedFilesAreReadOrRefused) {
  Json scaled = least("llama");
  scaled["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 8192}};
  scaled["head_dim"] = 4;
  scaled["tie_word_embeddings"] = true;
  const std::string seeds[] = {least_gpt2().dump(), scaled.dump(),
                               hugging_face_config(llama(9, 3, true, Biases::kQkv), DType::kF32, -1)};
  constexpr std::string_view kWords[] = {
      "{",    "}",     "[",       "]",           "\"",   ":",     ",",
      "null", "true",  "-1",      "0",           "1.5",  "1e309", "18446744073709551615",
      "4",    "\"x\"", "\\ud800", "\"mistral\"", "1e-6", "\xff"};
  std::mt19937_64 random(5);
  const auto below = [&](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
  int read = 0, refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = seeds[below(std::size(seeds))];
    for (std::size_t edits = 1 + below(3); edits > 0; --edits) {
      const std::size_t at = below(text.size());
      const std::string_view word = kWords[below(std::size(kWords))];
      const std::size_t gone = below(4) == 0 ? below(20) : 1;
      below(2) == 0 ? text.replace(at, gone, word) : text.insert(at, word);
    }
    try {
      const TransformerShape shape = shape_from_hugging_face(text, "config.json");
      ++read;
      ASSERT_GT(shape.layers, 0) << text;
      ASSERT_GT(shape.channels, 0) << text;
      ASSERT_GT(shape.head_size, 0) << text;
      ASSERT_EQ(shape.heads % shape.kv_heads, 0) << text;
      ASSERT_FALSE(family_of(shape).empty()) << text;
      ASSERT_EQ(TransformerShape::from_json(shape.to_json()), shape) << text;
    } catch (const IncompatibleCheckpointError&) {
      ++refused;
    }
  }
  EXPECT_GT(read, 500);
  EXPECT_GT(refused, 5000);
  EXPECT_THROW(shape_from_hugging_face(R"({"model_type":"gpt2","n_layer":)" + std::string(500'000, '['), ""),
               IncompatibleCheckpointError);
  EXPECT_THROW(
      shape_from_hugging_face(
          R"({"model_type":"gpt2","n_layer":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}", ""),
      IncompatibleCheckpointError);
}

}  // namespace
}  // namespace strake::models
