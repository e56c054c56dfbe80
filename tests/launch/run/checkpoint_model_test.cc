// What is said where a checkpoint holds another model than the one that is wanted.
#include "launch/run/checkpoint_model.h"

#include <gtest/gtest.h>

#include <string>

#include "launch/config.h"
#include "launch/job/model_shape.h"
#include "runtime/base/error.h"
#include "tests/support/thrown_by.h"

namespace strake::launch {
namespace {

models::TransformerShape shape(std::vector<std::string> keys) {
  keys.emplace_back("data.train=x.bin");
  return shape_of(load_config("", keys), 300);
}

// What a run with `wanted` is told of a checkpoint of `saved`, behind the checkpoint's path.
std::string refusal(const models::TransformerShape& saved, const models::TransformerShape& wanted) {
  checkpoint::FoundCheckpoint found{"runs/a/ckpt/step-00000003", {}};
  found.manifest.meta.model = saved.to_json();
  const std::string text =
      test::thrown_by<IncompatibleCheckpointError>([&] { require_model(found, wanted, "choose another run.dir"); });
  const std::string path = "runs/a/ckpt/step-00000003: is of another model: ";
  EXPECT_TRUE(text.starts_with(path)) << text;
  return text.substr(std::min(path.size(), text.size()));
}

TEST(RequireModel, TakesItsOwn) {
  const auto llama = shape({"model.kind=llama", "model.rope_scaling=llama3:8,1,4,8192"});
  checkpoint::FoundCheckpoint found{"step", {}};
  found.manifest.meta.model = llama.to_json();
  require_model(found, llama, "choose another");
}

TEST(RequireModel, NamesKeysBothValuesAndTheRemedy) {
  const auto base = shape({"model.kind=llama", "model.rope_theta=500000", "train.sequence=64"});
  EXPECT_EQ(refusal(base, shape({"model.kind=llama", "train.sequence=128"})),
            "train.sequence is 64, ours 128; model.rope_theta is 500000, ours 10000; set train.sequence=64 "
            "model.rope_theta=500000, or choose another run.dir");
  EXPECT_EQ(
      refusal(shape({"model.kind=llama"}), shape({"model.kind=llama", "model.kv_heads=2", "model.tied_head=true"})),
      "model.kv_heads is 4, ours 2; model.tied_head is false, ours true; set model.kv_heads=4 "
      "model.tied_head=false, or choose another run.dir");
  EXPECT_EQ(
      refusal(shape({"model.kind=llama"}), shape({"model.kind=llama", "model.rope_scaling=llama3:8,1,4,8192"})),
      "model.rope_scaling is not set, ours llama3:8,1,4,8192; set model.rope_scaling=, or choose another run.dir");
}

// Biases, norms, positions and MLP are what a kind of model has: no keys of their own.
TEST(RequireModel, OfAnotherKind) {
  EXPECT_EQ(refusal(shape({"model.kind=qwen2"}),
                    shape({"model.kind=llama", "model.norm_epsilon=1e-6", "model.rope_theta=1000000"})),
            "model.kind is qwen2, ours llama; set model.kind=qwen2, or choose another run.dir");
  const std::string text = refusal(shape({"model.kind=llama"}), shape({}));
  EXPECT_NE(text.find("model.kind is llama, ours gpt2; "), std::string::npos) << text;
  EXPECT_NE(text.find("; set model.kind=llama "), std::string::npos) << text;
  EXPECT_NE(text.find(" model.rope_theta=10000 "), std::string::npos) << text;
}

TEST(RequireModel, OfAKindThatHasNoName) {
  models::TransformerShape saved = shape({});
  saved.mlp = models::Mlp::kSwiglu;
  EXPECT_EQ(refusal(saved, shape({})), "no model.kind of this version has its kinds; choose another run.dir");
}

}  // namespace
}  // namespace strake::launch
