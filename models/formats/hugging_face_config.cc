// config.json of transformers: into a shape and back.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "models/formats/hugging_face.h"
#include "runtime/base/error.h"

namespace strake::models {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kMostLayers = 1000, kMostHeads = 1 << 12, kMostChannels = 1 << 20, kMostVocab = 1 << 24;
constexpr std::int64_t kMostMlpChannels = 1 << 24;
constexpr std::int64_t kMostSequence = 1 << 24, kMostHeadSize = 1 << 12;

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 60) + "..." : text;
}

std::string choice(const std::vector<Json>& possible) {
  std::vector<std::string> texts;
  for (const Json& value : possible) texts.push_back(value.dump());
  return fmt::format("{}", fmt::join(texts, " or "));
}

// Takes keys of an object and collects what does not fit. A key without a fallback must be there.
class ConfigKeys {
 public:
  // `path`: before every key in messages: "rope_scaling.".
  ConfigKeys(const Json& object, std::string path, std::vector<std::string>& problems)
      : object_(object), path_(std::move(path)), problems_(problems) {}

  std::int64_t integer(const char* key, std::int64_t most, std::optional<std::int64_t> fallback = std::nullopt) {
    const Json* value = find(key, fallback.has_value());
    if (value == nullptr) return fallback.value_or(1);
    if (value->is_number_unsigned() && value->get<std::uint64_t>() >= 1 &&
        value->get<std::uint64_t>() <= static_cast<std::uint64_t>(most)) {
      return static_cast<std::int64_t>(value->get<std::uint64_t>());
    }
    problem(fmt::format("{} is {}, possible is 1 to {}", key, shown(*value), most));
    return 1;
  }
  double number(const char* key, double least, double most, std::optional<double> fallback = std::nullopt) {
    const Json* value = find(key, fallback.has_value());
    if (value == nullptr) return fallback.value_or(1);
    if (value->is_number() && value->get<double>() >= least && value->get<double>() <= most)
      return value->get<double>();
    problem(fmt::format("{} is {}, possible is {} to {}", key, shown(*value), least, most));
    return 1;
  }
  bool boolean(const char* key, bool fallback) {
    const Json* value = find(key, true);
    if (value == nullptr) return fallback;
    if (value->is_boolean()) return value->get<bool>();
    problem(fmt::format("{} is {}, possible is true or false", key, shown(*value)));
    return fallback;
  }
  // An absent key means the first of the possible values, which is Hugging Face's own default.
  Json one_of(const char* key, const std::vector<Json>& possible) {
    const auto found = object_.find(key);
    if (found == object_.end()) return possible.front();
    if (std::ranges::find(possible, *found) != possible.end()) return *found;
    problem(fmt::format("{} is {}, possible is {}", key, shown(*found), choice(possible)));
    return possible.front();
  }
  void no_other_than(std::initializer_list<std::string_view> known) {
    for (const auto& [key, value] : object_.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end())
        problem(fmt::format("{} is not known", key.substr(0, 60)));
    }
  }
  // The object that a key holds; nullopt: absent or null.
  std::optional<ConfigKeys> inside(const char* key) {
    const auto found = object_.find(key);
    if (found == object_.end() || found->is_null()) return std::nullopt;
    if (found->is_object()) return ConfigKeys(*found, fmt::format("{}{}.", path_, key), problems_);
    problem(fmt::format("{} is {}, possible is null or an object", key, shown(*found)));
    return std::nullopt;
  }

  bool has(const char* key) const { return object_.contains(key); }
  const Json* value(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }
  // `text` begins with a key.
  void problem(const std::string& text) { problems_.push_back(path_ + text); }
  bool sound() const { return problems_.empty(); }

 private:
  // nullptr: absent, or null where there is a fallback.
  const Json* find(const char* key, bool has_fallback) {
    const auto found = object_.find(key);
    if (found != object_.end() && !(has_fallback && found->is_null())) return &*found;
    if (!has_fallback) problem(fmt::format("{} is missing", key));
    return nullptr;
  }

  const Json& object_;
  std::string path_;
  std::vector<std::string>& problems_;
};

TransformerShape read_gpt2(ConfigKeys& keys) {
  const std::int64_t layers = keys.integer("n_layer", kMostLayers), channels = keys.integer("n_embd", kMostChannels);
  const std::int64_t heads = keys.integer("n_head", kMostHeads), vocab = keys.integer("vocab_size", kMostVocab);
  TransformerShape shape = gpt2_shape(layers, channels, heads, vocab, keys.integer("n_positions", kMostSequence));
  if (keys.sound() && shape.channels % shape.heads != 0) {
    keys.problem(fmt::format("n_embd is {}, no multiple of n_head = {}", shape.channels, shape.heads));
  }
  shape.mlp_channels = keys.integer("n_inner", kMostMlpChannels, shape.mlp_channels);
  keys.one_of("activation_function", {"gelu_new", "gelu_pytorch_tanh"});  // two names of the tanh form
  shape.norm_epsilon = keys.number("layer_norm_epsilon", 1e-30, 1, shape.norm_epsilon);
  keys.one_of("scale_attn_weights", {true});
  keys.one_of("scale_attn_by_inverse_layer_idx", {false});
  keys.one_of("add_cross_attention", {false});
  keys.one_of("tie_word_embeddings", {true});
  return shape;
}

// What one of the objects about rotary positions says.
struct Rotary {
  std::optional<double> base;
  std::optional<RotaryScaling> scaling;
};

constexpr double kMostBase = 1e12;

Rotary read_rotary_object(ConfigKeys keys) {
  Rotary rotary;
  const Json of_old_key = keys.one_of("type", {"default", "llama3"});
  const Json kind = keys.has("rope_type") ? keys.one_of("rope_type", {"default", "llama3"}) : of_old_key;
  if (keys.has("type") && kind != of_old_key) {
    keys.problem(fmt::format("rope_type is {}, its older name type is {}, possible is the same of both", shown(kind),
                             shown(of_old_key)));
  }
  if (keys.has("rope_theta")) rotary.base = keys.number("rope_theta", 1, kMostBase);
  keys.one_of("partial_rotary_factor", {1.0});
  if (kind == "llama3") {
    rotary.scaling = {.factor = keys.number("factor", 1, 1e6),
                      .low_frequency_factor = keys.number("low_freq_factor", 1e-6, 1e6),
                      .high_frequency_factor = keys.number("high_freq_factor", 1e-6, 1e6),
                      .original_sequence = keys.integer("original_max_position_embeddings", kMostSequence)};
    if (keys.sound() && rotary.scaling->low_frequency_factor >= rotary.scaling->high_frequency_factor) {
      keys.problem(fmt::format("low_freq_factor is {}, possible is less than high_freq_factor = {}",
                               rotary.scaling->low_frequency_factor, rotary.scaling->high_frequency_factor));
    }
    keys.no_other_than({"type", "rope_type", "rope_theta", "partial_rotary_factor", "factor", "low_freq_factor",
                        "high_freq_factor", "original_max_position_embeddings"});
  } else if (keys.sound()) {
    keys.no_other_than({"type", "rope_type", "rope_theta", "partial_rotary_factor"});
  }
  return rotary;
}

// Newer files keep it all in rope_parameters, older ones the base beside rope_scaling.
void read_rotary(ConfigKeys& keys, TransformerShape& shape) {
  Rotary rotary;
  if (keys.has("rope_theta")) rotary.base = keys.number("rope_theta", 1, kMostBase);
  bool first = true;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const std::optional<ConfigKeys> object = keys.inside(key);
    if (!object.has_value()) continue;
    const Rotary said = read_rotary_object(*object);
    if (rotary.base && said.base && *rotary.base != *said.base)
      keys.problem(
          fmt::format("rope_theta is {}, in {} {}, possible is the same in both", *rotary.base, key, *said.base));
    if (!rotary.base) rotary.base = said.base;
    if (!std::exchange(first, false) && rotary.scaling != said.scaling)
      keys.problem("rope_scaling is another scaling than rope_parameters says, possible is one of them");
    rotary.scaling = said.scaling;
  }
  shape.rotary_base = rotary.base.value_or(shape.rotary_base);
  shape.rotary_scaling = rotary.scaling;
}

// Where families of Llama's make differ.
struct LlamaLike {
  std::string_view model_type, architecture;
  Biases biases;
  std::int64_t kv_heads;                    // where the key is absent; 0: as many as of queries
  std::span<const char* const> false_keys;  // that what is exported says
};
constexpr const char *kNoOtherBiases[] = {"attention_bias", "mlp_bias"}, *kNoWindow[] = {"use_sliding_window"};
constexpr LlamaLike kLlamaLikes[] = {
    {"llama", "LlamaForCausalLM", Biases::kNone, 0, kNoOtherBiases},
    {"mistral", "MistralForCausalLM", Biases::kNone, 8, {}},
    {"qwen2", "Qwen2ForCausalLM", Biases::kQkv, 32, kNoWindow},
};

const LlamaLike& llama_like(std::string_view model_type) {
  return *std::ranges::find(kLlamaLikes, model_type, &LlamaLike::model_type);
}

TransformerShape read_llama(ConfigKeys& keys, const LlamaLike& family) {
  TransformerShape shape{.layers = keys.integer("num_hidden_layers", kMostLayers),
                         .channels = keys.integer("hidden_size", kMostChannels),
                         .heads = keys.integer("num_attention_heads", kMostHeads),
                         .mlp_channels = keys.integer("intermediate_size", kMostMlpChannels),
                         .vocab = keys.integer("vocab_size", kMostVocab),
                         .sequence = keys.integer("max_position_embeddings", kMostSequence),
                         .norm = Norm::kRms,
                         .norm_epsilon = keys.number("rms_norm_eps", 1e-30, 1, 1e-6),
                         .positions = Positions::kRotary,
                         .mlp = Mlp::kSwiglu,
                         .biases = family.biases,
                         .tied_head = keys.boolean("tie_word_embeddings", false)};
  const bool says_null = keys.has("num_key_value_heads") && keys.value("num_key_value_heads")->is_null();
  shape.kv_heads = keys.integer("num_key_value_heads", kMostHeads,
                                family.kv_heads == 0 || says_null ? shape.heads : family.kv_heads);
  if (keys.sound() && shape.heads % shape.kv_heads != 0) {
    keys.problem(
        fmt::format("num_attention_heads is {}, no multiple of num_key_value_heads = {}", shape.heads, shape.kv_heads));
  }
  const bool says_size = keys.has("head_dim") && !keys.value("head_dim")->is_null();
  if (keys.sound() && !says_size && shape.channels % shape.heads != 0) {
    keys.problem(fmt::format("hidden_size is {}, no multiple of num_attention_heads = {}, and there is no head_dim",
                             shape.channels, shape.heads));
  }
  shape.head_size = keys.integer("head_dim", kMostHeadSize, std::max<std::int64_t>(1, shape.channels / shape.heads));
  if (keys.sound() && shape.head_size % 2 != 0) {
    keys.problem(fmt::format("{} is {}, possible are even numbers: rotary positions turn pairs",
                             says_size ? "head_dim" : "hidden_size / num_attention_heads", shape.head_size));
  }
  read_rotary(keys, shape);
  keys.one_of("hidden_act", {"silu"});
  keys.one_of("partial_rotary_factor", {1.0});
  if (family.model_type == "llama") {
    keys.one_of("attention_bias", {false});  // of every projection, o_proj too
    keys.one_of("mlp_bias", {false});
  }
  keys.one_of("quantization_config", {nullptr});
  if (family.model_type == "mistral") {
    // A window as wide as the longest sequence is none. Absent means Mistral's own default.
    const std::int64_t window = keys.value("sliding_window") != nullptr && keys.value("sliding_window")->is_null()
                                    ? shape.sequence
                                    : keys.integer("sliding_window", INT64_MAX, 4096);
    if (keys.sound() && window < shape.sequence) {
      keys.problem(fmt::format("sliding_window is {}, possible is null or at least max_position_embeddings = {}",
                               window, shape.sequence));
    }
  }
  keys.one_of("use_sliding_window", {false});
  if (const Json* kinds = keys.value("layer_types"); kinds != nullptr && !kinds->is_null()) {
    const bool full =
        kinds->is_array() && std::ranges::all_of(*kinds, [](const Json& kind) { return kind == "full_attention"; });
    if (!full) keys.problem(fmt::format("layer_types is {}, possible is \"full_attention\" of all", shown(*kinds)));
  }
  return shape;
}

nlohmann::ordered_json gpt2_config(const TransformerShape& shape) {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"n_layer", shape.layers},
          {"n_embd", shape.channels},
          {"n_head", shape.heads},
          {"n_inner", shape.mlp_channels == 4 * shape.channels ? Json(nullptr) : Json(shape.mlp_channels)},
          {"n_positions", shape.sequence},
          {"vocab_size", shape.vocab},
          {"activation_function", "gelu_new"},
          {"layer_norm_epsilon", shape.norm_epsilon},
          {"scale_attn_weights", true},
          {"scale_attn_by_inverse_layer_idx", false},
          {"tie_word_embeddings", true},
          {"attn_pdrop", 0.0},
          {"embd_pdrop", 0.0},
          {"resid_pdrop", 0.0}};
}

nlohmann::ordered_json llama_config(const TransformerShape& shape) {
  const LlamaLike& family = llama_like(family_of(shape));
  nlohmann::ordered_json config{{"architectures", {family.architecture}},
                                {"model_type", family.model_type},
                                {"num_hidden_layers", shape.layers},
                                {"hidden_size", shape.channels},
                                {"num_attention_heads", shape.heads},
                                {"num_key_value_heads", shape.kv_heads},
                                {"head_dim", shape.head_size},
                                {"intermediate_size", shape.mlp_channels},
                                {"max_position_embeddings", shape.sequence},
                                {"vocab_size", shape.vocab},
                                {"hidden_act", "silu"},
                                {"rms_norm_eps", shape.norm_epsilon},
                                {"rope_theta", shape.rotary_base},
                                {"rope_scaling", nullptr},
                                {"tie_word_embeddings", shape.tied_head},
                                {"attention_dropout", 0.0}};
  if (shape.rotary_scaling.has_value()) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", shape.rotary_scaling->factor},
                              {"low_freq_factor", shape.rotary_scaling->low_frequency_factor},
                              {"high_freq_factor", shape.rotary_scaling->high_frequency_factor},
                              {"original_max_position_embeddings", shape.rotary_scaling->original_sequence}};
  }
  for (const char* key : family.false_keys) config[key] = false;
  return config;
}

}  // namespace

TransformerShape shape_from_hugging_face(std::string_view config, const std::string& where) {
  constexpr int kMaxDepth = 16;  // deeper ones would be deep calls wherever they are looked at
  const auto keep = [](int depth, Json::parse_event_t, const Json&) { return depth <= kMaxDepth; };
  const Json object = Json::parse(config, keep, false);
  if (!object.is_object()) throw IncompatibleCheckpointError(fmt::format("{}: is no JSON object; get it again", where));
  std::vector<std::string> problems;
  ConfigKeys keys(object, "", problems);
  TransformerShape shape;
  std::vector<Json> kinds{"gpt2"};
  for (const LlamaLike& family : kLlamaLikes) kinds.push_back(family.model_type);
  if (!object.contains("model_type")) {
    keys.problem(fmt::format("model_type is missing, possible is {}", choice(kinds)));
  } else if (const Json kind = keys.one_of("model_type", kinds); !keys.sound()) {
    // What else it says is of another model.
  } else if (kind == "gpt2") {
    shape = read_gpt2(keys);
  } else {
    shape = read_llama(keys, llama_like(kind.get<std::string>()));
  }
  if (problems.empty()) return shape;
  throw IncompatibleCheckpointError(
      fmt::format("{}: describes a model that cannot be imported: {}; models of type {} as they were published can be",
                  where, fmt::join(problems, "; "), choice(kinds)));
}

std::string hugging_face_config(const TransformerShape& shape, DType dtype, std::int64_t end_of_text) {
  nlohmann::ordered_json config = family_of(shape) == "gpt2" ? gpt2_config(shape) : llama_config(shape);
  const Json end = end_of_text < 0 ? Json() : Json(end_of_text);
  config["bos_token_id"] = end;
  config["eos_token_id"] = end;
  config["torch_dtype"] = dtype == DType::kBF16 ? "bfloat16" : "float32";
  return config.dump(2) + "\n";
}

}  // namespace strake::models
