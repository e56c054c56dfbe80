#include "models/formats/counted_storage.h"

#include <gtest/gtest.h>

#include "models/transformer.h"
#include "runtime/base/error.h"

namespace strake::models {
namespace {

TEST(CountedStorage, KnowsItsOwnDescription) {
  EXPECT_EQ(shape_of_counted_storage(R"({"channels":40,"heads":4,"kind":"gpt2","layers":11,"sequence":6,"vocab":50})"),
            gpt2_shape(11, 40, 4, 50, 6));
  EXPECT_EQ(shape_of_counted_storage(gpt2_shape(11, 40, 4, 50, 6).to_json()), std::nullopt);
  EXPECT_EQ(shape_of_counted_storage("nonsense"), std::nullopt);
  EXPECT_EQ(shape_of_counted_storage("[]"), std::nullopt);
}

TEST(CountedStorage, RefusesWhatContradictsItself) {
  for (const char* text : {R"({"kind":"gpt2"})", R"({"kind":7})", R"({"kind":"bert","layers":1})",
                           R"({"channels":41,"heads":4,"kind":"gpt2","layers":11,"sequence":6,"vocab":50})",
                           R"({"channels":40,"heads":0,"kind":"gpt2","layers":11,"sequence":6,"vocab":50})",
                           R"({"channels":40,"heads":4,"kind":"gpt2","layers":-1,"sequence":6,"vocab":50})",
                           R"({"channels":40,"heads":4,"kind":"gpt2","layers":1e9,"sequence":6,"vocab":50})"}) {
    EXPECT_THROW(shape_of_counted_storage(text), IncompatibleCheckpointError) << text;
  }
}

// Every parameter under its own name, with the shape that earlier versions gave it.
TEST(CountedStorage, HasTheShapesOfEarlierVersions) {
  const TransformerShape shape = gpt2_shape(2, 12, 3, 19, 5);
  const std::vector<ForeignTensor> tensors = counted_storage_tensors(shape);
  ASSERT_EQ(tensors.size(), parameters_of(shape).size());
  const auto shape_of = [&](const std::string& name) {
    for (const ForeignTensor& tensor : tensors) {
      if (tensor.name == name) return tensor.shape;
    }
    return std::vector<std::int64_t>();
  };
  EXPECT_EQ(shape_of("h.1.attn.qkv.weight"), (std::vector<std::int64_t>{36, 12}));
  EXPECT_EQ(shape_of("h.1.attn.proj.weight"), (std::vector<std::int64_t>{12, 12}));
  EXPECT_EQ(shape_of("h.1.mlp.fc.weight"), (std::vector<std::int64_t>{48, 12}));
  EXPECT_EQ(shape_of("h.1.mlp.proj.weight"), (std::vector<std::int64_t>{12, 48}));
  EXPECT_EQ(shape_of("h.1.mlp.proj.bias"), (std::vector<std::int64_t>{12}));
  EXPECT_EQ(shape_of("wte.weight"), (std::vector<std::int64_t>{128, 12}));
  EXPECT_EQ(shape_of("wpe.weight"), (std::vector<std::int64_t>{5, 12}));
}

// Refused where a model is read, naming the command.
TEST(CountedStorage, IsNotReadByAccident) {
  try {
    TransformerShape::from_json(R"({"channels":40,"heads":4,"kind":"gpt2","layers":11,"sequence":6,"vocab":50})");
    FAIL();
  } catch (const IncompatibleCheckpointError& error) {
    EXPECT_NE(std::string(error.what()).find("strake ckpt convert"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace strake::models
