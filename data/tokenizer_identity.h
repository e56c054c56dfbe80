// Which tokenizer made the ids of a token file. Kept beside the file and carried into checkpoints, so that
// text is never encoded or decoded by another one than the model was trained with.
#pragma once

#include <string>
#include <string_view>

namespace strake::data {

struct TokenizerIdentity {
  std::string name = "unknown";  // "bytes", "gpt2"
  std::string hash;              // of its vocabulary; empty: not known

  bool known() const { return name != "unknown"; }
  bool operator==(const TokenizerIdentity&) const = default;
};

// "bytes 9c44184b", in quotes, for messages.
std::string describe_tokenizer(const TokenizerIdentity& identity);
// {"name": "bytes", "hash": "9c44184b"}
std::string to_json(const TokenizerIdentity& identity);
// Throws DataError saying what is malformed; `where` is what it calls the text.
TokenizerIdentity tokenizer_from_json(std::string_view text, std::string_view where);

}  // namespace strake::data
