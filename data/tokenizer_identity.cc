#include "data/tokenizer_identity.h"

#include "data/strict_json.h"
#include "runtime/base/text.h"

namespace strake::data {

std::string describe_tokenizer(const TokenizerIdentity& identity) {
  return json_quote(identity.hash.empty() ? identity.name : identity.name + " " + identity.hash);
}

std::string to_json(const TokenizerIdentity& identity) {
  return dump(nlohmann::ordered_json{{"name", identity.name}, {"hash", identity.hash}});
}

TokenizerIdentity tokenizer_from_json(std::string_view text, std::string_view where) {
  const nlohmann::json object = parse_object(text, where);
  ObjectReader reader(object, where);
  TokenizerIdentity identity{.name = reader.string("name", 256), .hash = reader.string("hash", 256)};
  reader.finish();
  return identity;
}

}  // namespace strake::data
