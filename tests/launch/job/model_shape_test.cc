// From keys to a shape and back.
#include "launch/job/model_shape.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strake::launch {
namespace {

// A configuration of these keys, over whatever else is in it.
Config with_keys(const ModelKeys& keys, std::vector<std::string> before = {}) {
  before.emplace_back("data.train=x.bin");
  for (const auto& [key, value] : keys) before.push_back(key + '=' + value);
  return load_config("", before);
}

TEST(KeysOf, MakeTheShapeAgain) {
  const std::vector<std::vector<std::string>> models{
      {},
      {"model.kind=gpt2", "model.layers=3", "model.mlp_channels=100", "model.norm_epsilon=3e-7", "model.head_size=7"},
      {"model.kind=llama"},
      {"model.kind=llama", "model.kv_heads=2", "model.tied_head=true", "model.rope_theta=500000",
       "model.rope_scaling=llama3:32.5,1,4,8192", "train.sequence=17"},
      {"model.kind=qwen2", "model.head_size=6", "model.norm_epsilon=1e-5", "model.mlp_channels=44"}};
  for (const std::vector<std::string>& model : models) {
    const models::TransformerShape shape = shape_of(with_keys({}, model), 300);
    const ModelKeys keys = keys_of(shape);
    const Config config = with_keys(keys);
    const models::TransformerShape again = shape_of(config, config.model.vocab);
    EXPECT_EQ(again.to_json(), shape.to_json()) << to_text(keys);
    EXPECT_EQ(keys_of(again), keys);
  }
}

TEST(KeysOf, ReplaceWhatElseIsSet) {
  const ModelKeys plain = keys_of(shape_of(with_keys({}, {"model.kind=llama"}), 300));
  const Config other = with_keys(plain, {"model.kind=qwen2", "model.kv_heads=1", "model.tied_head=true",
                                         "model.rope_scaling=llama3:8,1,4,8192", "model.rope_theta=9"});
  EXPECT_EQ(keys_of(shape_of(other, 300)), plain);
}

TEST(KeysOf, NothingWhereNoKindHasIt) {
  models::TransformerShape shape = models::gpt2_shape(2, 16, 2, 100, 8);
  ASSERT_FALSE(keys_of(shape).empty());
  shape.norm = models::Norm::kRms;
  EXPECT_TRUE(keys_of(shape).empty());
}

}  // namespace
}  // namespace strake::launch
