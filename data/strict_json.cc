#include "data/strict_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::data {

using nlohmann::json;

namespace {

constexpr int kMaxDepth = 4;

// What a message shows of a value: never more than a glance, never a control character.
std::string excerpt(const json& value) {
  std::string text = dump(value);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text.front() == '"' ? json_quote(text) : text;
}

}  // namespace

json parse_object(std::string_view text, std::string_view where) {
  std::vector<std::set<std::string, std::less<>>> keys;
  const auto check_structure = [&](int depth, json::parse_event_t event, json& value) {
    if (depth >= kMaxDepth) throw DataError(fmt::format("{}: nested deeper than {} levels", where, kMaxDepth));
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second) {
      throw DataError(fmt::format("{}: key {} stands twice", where, json_quote(value.get<std::string>())));
    }
    return true;
  };
  json value;
  try {
    value = json::parse(text, check_structure);
  } catch (const json::parse_error& error) {
    throw DataError(fmt::format("{}: not valid JSON at byte {}", where, error.byte));
  } catch (const json::exception& error) {  // a number beyond every type
    throw DataError(fmt::format("{}: not valid JSON: {}", where, json_quote(error.what())));
  }
  if (!value.is_object())
    throw DataError(fmt::format("{}: expected a JSON object, found {}", where, value.type_name()));
  return value;
}

const json& ObjectReader::take(std::string_view key) {
  asked_.push_back(key);
  const auto found = object_.find(key);
  if (found == object_.end()) throw DataError(fmt::format("{}: key \"{}\" is missing", where_, key));
  return *found;
}

void ObjectReader::refuse(std::string_view key, std::string_view expected, const json& found) const {
  throw DataError(fmt::format("{}: key \"{}\": expected {}, found {}", where_, key, expected, excerpt(found)));
}

std::string ObjectReader::string(std::string_view key, std::size_t max_bytes) {
  const json& value = take(key);
  if (!value.is_string() || value.get_ref<const std::string&>().size() > max_bytes) {
    refuse(key, fmt::format("a string of at most {} bytes", max_bytes), value);
  }
  return value.get<std::string>();
}

std::int64_t ObjectReader::integer(std::string_view key, std::int64_t least, std::int64_t most) {
  const json& value = take(key);
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX));
  if (!fits || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) {
    refuse(key, fmt::format("a whole number from {} to {}", least, most), value);
  }
  return value.get<std::int64_t>();
}

std::uint64_t ObjectReader::unsigned_integer(std::string_view key) {
  const json& value = take(key);
  if (!value.is_number_unsigned()) refuse(key, "a whole number from 0 to 2^64 - 1", value);
  return value.get<std::uint64_t>();
}

std::uint32_t ObjectReader::hex32(std::string_view key) {
  const json& value = take(key);
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  std::uint32_t number = 0;
  const bool digits = text.size() == 8 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!digits) refuse(key, "eight lower-case hexadecimal digits", value);
  std::from_chars(text.data(), text.data() + text.size(), number, 16);
  return number;
}

std::optional<std::uint32_t> ObjectReader::optional_hex32(std::string_view key) {
  if (object_.contains(key)) return hex32(key);
  asked_.push_back(key);
  return std::nullopt;
}

const json& ObjectReader::object(std::string_view key) {
  const json& value = take(key);
  if (!value.is_object()) refuse(key, "an object", value);
  return value;
}

const json& ObjectReader::array(std::string_view key, std::size_t least) {
  const json& value = take(key);
  if (!value.is_array() || value.size() < least) refuse(key, fmt::format("an array of at least {}", least), value);
  return value;
}

void ObjectReader::finish() const {
  for (const auto& [key, value] : object_.items()) {
    if (std::find(asked_.begin(), asked_.end(), key) == asked_.end()) {
      throw DataError(
          fmt::format("{}: unknown key {}; known are: {}", where_, json_quote(key), fmt::join(asked_, ", ")));
    }
  }
}

std::string dump(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string dump(const nlohmann::ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace strake::data
