#include "data/token_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::data {

void require_ids_below(std::int64_t vocab, const TokenSource& source, std::int64_t begin,
                       std::span<const std::int32_t> ids) {
  const auto wrong = std::find_if(ids.begin(), ids.end(), [vocab](std::int32_t id) { return id < 0 || id >= vocab; });
  if (wrong == ids.end()) return;
  const TokenSource::Place place = source.place_of(begin + (wrong - ids.begin()));
  throw DataError(fmt::format(
      "token file {}: token {} is id {}, but the vocabulary has {}. Use the tokenizer the model is configured for, "
      "or a larger vocabulary",
      json_quote(place.source), place.token, *wrong, vocab));
}

void require_ids_below(std::int64_t vocab, TokenSource& source, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kAtOnce = 1 << 16;
  std::vector<std::int32_t> ids;
  while (begin < end) {
    ids.resize(static_cast<std::size_t>(std::min(kAtOnce, end - begin)));
    source.read(begin, ids);
    require_ids_below(vocab, source, begin, ids);
    begin += static_cast<std::int64_t>(ids.size());
  }
}

std::int64_t require_sequences(const TokenSource& source, std::int64_t sequence) {
  STRAKE_CHECK(sequence >= 1, "a sequence has at least one token");
  const std::int64_t whole = source.sequences(sequence);
  if (whole < 1) {
    throw DataError(
        fmt::format("token file {}: expected at least {} tokens (one sequence and the target of its last), "
                    "found {}. Use a longer file or a smaller train.sequence",
                    json_quote(source.describe()), sequence + 1, source.tokens()));
  }
  return whole;
}

}  // namespace strake::data
