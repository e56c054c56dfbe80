#include "models/split_embedding.h"

namespace strake::models {

SplitEmbedding split_where_fewer_bytes(const TransformerShape& shape, const TableTraffic& traffic) {
  if (!shape.tied_head || traffic.ranks == 1) return SplitEmbedding::kNo;
  const auto channels = static_cast<double>(shape.channels);
  const double row_bytes = channels * static_cast<double>(size_bytes(traffic.row)) + sizeof(std::int32_t);
  const double table_bytes =
      static_cast<double>(shape.padded_vocab()) * channels * static_cast<double>(size_bytes(traffic.wire));
  return static_cast<double>(traffic.tokens_per_step) * row_bytes < table_bytes ? SplitEmbedding::kYes
                                                                                : SplitEmbedding::kNo;
}

}  // namespace strake::models
