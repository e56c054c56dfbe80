#include "models/hugging_face_gpt2.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "models/transformer.h"
#include "runtime/base/error.h"

namespace strake::models {
namespace {

const models::TransformerShape kSmall = models::gpt2_shape(11, 40, 4, 50, 6);

std::int64_t product(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

TEST(HuggingFaceGpt2, NamesEveryParameterOnce) {
  const ParamLayout layout = parameters_of(kSmall);
  const std::vector<ParamSpec>& specs = layout.specs();
  const std::vector<HuggingFaceTensor> tensors = hugging_face_tensors(kSmall);
  ASSERT_EQ(tensors.size(), specs.size());
  std::set<std::string> names;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(index_of(tensors[i].param), i);
    names.insert(tensors[i].name);
    const bool padded = specs[i].name == "wte.weight";
    EXPECT_EQ(tensors[i].elems(), padded ? kSmall.vocab * kSmall.channels : product(specs[i].global_shape));
  }
  std::set<std::string> expected{"wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"};
  for (int layer = 0; layer < 11; ++layer) {
    for (const char* name : {"ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"}) {
      expected.insert("h." + std::to_string(layer) + "." + name + ".weight");
      expected.insert("h." + std::to_string(layer) + "." + name + ".bias");
    }
  }
  EXPECT_EQ(names, expected);
  const auto find = [&](const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const auto& tensor) { return tensor.name == name; });
  };
  const HuggingFaceTensor fc = find("h.10.mlp.c_fc.weight");
  EXPECT_EQ(fc.shape, (std::vector<std::int64_t>{40, 160}));
  EXPECT_TRUE(fc.transposed);
  EXPECT_EQ(specs[index_of(fc.param)].name, "h.10.mlp.fc.weight");
  EXPECT_EQ(find("wte.weight").shape, (std::vector<std::int64_t>{50, 40}));
  EXPECT_FALSE(find("wpe.weight").transposed);
}

TEST(HuggingFaceGpt2, ConvertsThereAndBack) {
  const ParamLayout layout = parameters_of(kSmall);
  const std::vector<ParamSpec>& specs = layout.specs();
  for (const HuggingFaceTensor& tensor : hugging_face_tensors(kSmall)) {
    std::vector<float> theirs(static_cast<std::size_t>(tensor.elems()));
    std::iota(theirs.begin(), theirs.end(), 1.0f);
    const std::int64_t ours_elems = product(specs[index_of(tensor.param)].global_shape);
    std::vector<float> ours(static_cast<std::size_t>(ours_elems), -1.0f);
    from_hugging_face(tensor, theirs, ours);
    if (tensor.transposed) {
      const std::int64_t in = tensor.shape[0], out = tensor.shape[1];
      for (std::int64_t i = 0; i < in; ++i) {
        for (std::int64_t o = 0; o < out; ++o) {
          ASSERT_EQ(ours[static_cast<std::size_t>(o * in + i)], theirs[static_cast<std::size_t>(i * out + o)])
              << tensor.name << " [" << i << ", " << o << "]";
        }
      }
    }
    for (std::size_t i = theirs.size(); i < ours.size(); ++i) ASSERT_EQ(ours[i], 0.0f) << "padding of " << tensor.name;
    std::vector<float> back(theirs.size());
    to_hugging_face(tensor, ours, back);
    EXPECT_EQ(back, theirs) << tensor.name;
  }
}

TEST(HuggingFaceGpt2, KnowsMasks) {
  EXPECT_TRUE(is_hugging_face_mask("h.0.attn.bias"));
  EXPECT_TRUE(is_hugging_face_mask("h.11.attn.masked_bias"));
  for (const char* name : {"h.0.attn.c_attn.bias", "attn.bias", "h.attn.bias", "h.x.attn.bias", "h.0.mlp.bias", "h."}) {
    EXPECT_FALSE(is_hugging_face_mask(name)) << name;
  }
}

TEST(HuggingFaceGpt2, ConfigThereAndBack) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const std::string config = hugging_face_config(kSmall, dtype, 49);
    EXPECT_EQ(shape_from_hugging_face(config, "config.json"), kSmall) << config;
  }
  const auto json = nlohmann::json::parse(hugging_face_config(kSmall, DType::kBF16, -1));
  EXPECT_EQ(json.at("torch_dtype"), "bfloat16");
  EXPECT_TRUE(json.at("eos_token_id").is_null());
  EXPECT_EQ(json.at("resid_pdrop"), 0.0);
}

// Only what is needed; all else at Hugging Face's defaults.
nlohmann::json least_config() {
  return {{"model_type", "gpt2"}, {"n_layer", 11},    {"n_embd", 40},
          {"n_head", 4},          {"vocab_size", 50}, {"n_positions", 6}};
}

TEST(HuggingFaceGpt2, AbsentKeysMeanTheDefaults) {
  EXPECT_EQ(shape_from_hugging_face(least_config().dump(), "config.json"), kSmall);
}

TEST(HuggingFaceGpt2, RefusesWhatItWouldComputeOtherwise) {
  const struct {
    const char* key;
    nlohmann::json value;
  } cases[] = {{"model_type", "llama"},
               {"n_layer", 0},
               {"n_layer", 1.5},
               {"n_layer", "11"},
               {"n_embd", -40},
               {"n_embd", 42},  // no multiple of 4 heads
               {"n_embd", 18446744073709551615u},
               {"n_inner", 80},
               {"activation_function", "gelu"},
               {"activation_function", "relu"},
               {"layer_norm_epsilon", 1e-6},
               {"scale_attn_weights", false},
               {"scale_attn_by_inverse_layer_idx", true},
               {"add_cross_attention", true},
               {"tie_word_embeddings", false}};
  for (const auto& [key, value] : cases) {
    nlohmann::json config = least_config();
    config[key] = value;
    try {
      shape_from_hugging_face(config.dump(), "here/config.json");
      ADD_FAILURE() << key << " = " << value;
    } catch (const IncompatibleCheckpointError& error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.starts_with("here/config.json: ")) << message;
      EXPECT_NE(message.find(key), message.npos) << message;
    }
  }
  for (const char* key : {"model_type", "n_layer", "n_embd", "n_head", "vocab_size", "n_positions"}) {
    nlohmann::json config = least_config();
    config.erase(key);
    EXPECT_THROW(shape_from_hugging_face(config.dump(), ""), IncompatibleCheckpointError) << key;
  }
  for (const char* text : {"", "[]", "{", "7"}) {
    EXPECT_THROW(shape_from_hugging_face(text, ""), IncompatibleCheckpointError) << text;
  }
}

TEST(HuggingFaceGpt2, NamesAllProblemsAtOnce) {
  nlohmann::json config = least_config();
  config["activation_function"] = "relu";
  config["n_inner"] = 7;
  config.erase("n_head");
  try {
    shape_from_hugging_face(config.dump(), "config.json");
    FAIL();
  } catch (const IncompatibleCheckpointError& error) {
    for (const char* part : {"relu", "n_inner is 7", "n_head is missing"}) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace strake::models
