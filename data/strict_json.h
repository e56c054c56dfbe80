// JSON from files, read strictly: bounded depth, no duplicate keys, no unknown keys, exact types.
// Threads: any. Errors: DataError beginning with `where` and naming the key.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace strake::data {

// The text as a JSON object. `where` names it in messages.
nlohmann::json parse_object(std::string_view text, std::string_view where);

// Takes the members of one object apart; finish() refuses what was not asked for.
class ObjectReader {
 public:
  // REQUIRES: both outlive the reader.
  ObjectReader(const nlohmann::json& object, std::string_view where) : object_(object), where_(where) {}

  // At most `max_bytes` long.
  std::string string(std::string_view key, std::size_t max_bytes);
  // A whole number in [least, most].
  std::int64_t integer(std::string_view key, std::int64_t least, std::int64_t most);
  std::uint64_t unsigned_integer(std::string_view key);
  // Eight lower-case hexadecimal digits.
  std::uint32_t hex32(std::string_view key);
  std::optional<std::uint32_t> optional_hex32(std::string_view key);
  const nlohmann::json& object(std::string_view key);
  // At least `least` elements.
  const nlohmann::json& array(std::string_view key, std::size_t least);
  void finish() const;

 private:
  const nlohmann::json& take(std::string_view key);
  [[noreturn]] void refuse(std::string_view key, std::string_view expected, const nlohmann::json& found) const;

  const nlohmann::json& object_;
  std::string_view where_;
  std::vector<std::string_view> asked_;  // keys are literals
};

// Bytes that are not UTF-8 become U+FFFD.
std::string dump(const nlohmann::json& value, int indent = -1);
std::string dump(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace strake::data
