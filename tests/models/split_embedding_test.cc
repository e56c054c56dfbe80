// Where the token part of a tied table's gradient travels as rows.
#include "models/split_embedding.h"

#include <gtest/gtest.h>

#include "models/transformer.h"

namespace strake::models {
namespace {

bool splits(const TransformerShape& shape, int ranks, std::int64_t tokens, DType row = DType::kF32,
            DType wire = DType::kF32) {
  return split_where_fewer_bytes(shape, {.ranks = ranks, .tokens_per_step = tokens, .row = row, .wire = wire}) ==
         SplitEmbedding::kYes;
}

TEST(SplitEmbedding, IsWhereRowsOfAllRanksAreFewerBytesThanTheTable) {
  const TransformerShape shape = gpt2_shape(2, 64, 2, 50257, 128);  // 50304 rows of 64
  // A row of 260 bytes, its id included, beside one of 256.
  const std::int64_t most = (50304 * 256 - 1) / 260;
  EXPECT_TRUE(splits(shape, 2, most));
  EXPECT_FALSE(splits(shape, 2, most + 1));
  EXPECT_TRUE(splits(shape, 8, most)) << "tokens are of all ranks";
  EXPECT_FALSE(splits(shape, 1, 1)) << "one rank sends nothing";
  TransformerShape untied = shape;
  untied.tied_head = false;
  EXPECT_FALSE(splits(untied, 2, 1));
  // Half the bytes a row, half the bytes of the table.
  EXPECT_TRUE(splits(shape, 2, 90000, DType::kBF16, DType::kF32));
  EXPECT_FALSE(splits(shape, 2, 30000, DType::kF32, DType::kBF16));
  EXPECT_TRUE(splits(shape, 2, 24000, DType::kF32, DType::kBF16));
  // 256 ids, and thousands of tokens.
  EXPECT_FALSE(splits(gpt2_shape(4, 128, 4, 256, 128), 2, 4096));
}

// The table moves to where its gradient is final, and nothing else moves.
TEST(SplitEmbedding, TheTableIsFinalFirst) {
  TransformerShape shape = gpt2_shape(2, 16, 2, 60, 8);
  const ParamLayout whole = parameters_of(shape), split = parameters_of(shape, SplitEmbedding::kYes);
  ASSERT_EQ(split.size(), whole.size());
  EXPECT_EQ(split.param_elems(), whole.param_elems());
  EXPECT_EQ(split.specs().front().name, "wte.weight");
  EXPECT_FALSE(split.specs().front().final_at_end);
  EXPECT_TRUE(split.specs().back().final_at_end) << "positions";
  std::vector<std::string> names, others;
  for (const ParamSpec& spec : split.specs()) {
    if (spec.name != "wte.weight") names.push_back(spec.name);
  }
  for (const ParamSpec& spec : whole.specs()) {
    if (spec.name == "wte.weight") {
      EXPECT_TRUE(spec.final_at_end);
    } else {
      others.push_back(spec.name);
    }
  }
  EXPECT_EQ(names, others);
}

}  // namespace
}  // namespace strake::models
