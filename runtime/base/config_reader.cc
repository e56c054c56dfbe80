#include "runtime/base/config_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <type_traits>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake {
namespace {

enum Order { kFile, kCommandLine, kContradiction };

constexpr std::string_view kCommandLinePlace = "command line";

std::string_view section_of(std::string_view key) { return key.substr(0, key.find('.')); }

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// One text stands alone, as people write it: a key that learns to take several keeps what it says of one.
std::string list_as_json(const std::vector<std::string>& list) {
  if (list.size() < 2) return json_quote(list.empty() ? "" : list.front());
  std::string out;
  for (const std::string& text : list) out += (out.empty() ? "[" : ", ") + json_quote(text);
  return out + "]";
}

// nullopt: not an array of texts only.
std::optional<std::vector<std::string>> texts_of(const toml::array& array) {
  std::vector<std::string> texts;
  for (const toml::node& node : array) {
    const std::optional<std::string> text = node.value_exact<std::string>();
    if (!text) return std::nullopt;
    texts.push_back(*text);
  }
  return texts;
}

// A list as an override says it: ["a", "b"] or a,b.
std::optional<std::vector<std::string>> parse_list(std::string_view text) {
  if (text.empty()) return std::vector<std::string>();
  if (text.starts_with('[')) {
    try {
      const toml::table root = toml::parse(fmt::format("list = {}", text));
      const toml::array* array = root["list"].as_array();
      return array == nullptr || root.size() != 1 ? std::nullopt : texts_of(*array);
    } catch (const toml::parse_error&) {
      return std::nullopt;
    }
  }
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// How messages show a value that was not accepted.
template <typename Value>
std::string shown(const Value& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return json_quote(v);
        } else if constexpr (std::is_same_v<T, bool> || std::is_arithmetic_v<T>) {
          return fmt::format("{}", v);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          return list_as_json(v);
        } else {
          return json_quote(v.value);
        }
      },
      value);
}

// The number that a value says, if it lies in the range (NaN does not). A whole one is taken for a real one.
template <typename T, typename Text, typename Value>
std::optional<T> number_in(const Value& value, T min, T max) {
  std::optional<T> number;
  if (const auto* whole = std::get_if<std::int64_t>(&value)) number = static_cast<T>(*whole);
  if constexpr (std::is_same_v<T, double>) {
    if (const auto* real = std::get_if<double>(&value)) number = *real;
  }
  if (const auto* text = std::get_if<Text>(&value)) number = parse_number<T>(text->value);
  if (!number || !(*number >= min && *number <= max)) return std::nullopt;
  return number;
}

template <typename Text, typename Value>
bool is_auto(const Value& value) {
  const auto* word = std::get_if<std::string>(&value);
  const auto* text = std::get_if<Text>(&value);
  return (word != nullptr && *word == "auto") || (text != nullptr && text->value == "auto");
}

template <typename T>
std::string json_or_auto(const std::optional<T>& field) {
  return field.has_value() ? fmt::format("{}", *field) : std::string("\"auto\"");
}

}  // namespace

void ConfigReader::add(Key key) {
  STRAKE_CHECK(key.name.find('.') != std::string::npos, "a key is section.name");
  STRAKE_CHECK(find(key.name) == nullptr, "key bound twice: " + key.name);
  keys_.push_back(std::move(key));
}

void ConfigReader::bind(std::string key, std::int64_t& field, Range<std::int64_t> range, std::string doc,
                        Effect effect) {
  const auto assign = [&field, range](const Value& value) {
    const std::optional<std::int64_t> number = number_in<std::int64_t, Text>(value, range.min, range.max);
    if (number.has_value()) field = *number;
    return number.has_value();
  };
  add({std::move(key), fmt::format("an integer from {} to {}", range.min, range.max), std::move(doc), effect, assign,
       [&field] { return fmt::format("{}", field); }, "", false});
}

void ConfigReader::bind(std::string key, std::optional<std::int64_t>& field, Range<std::int64_t> range, std::string doc,
                        Effect effect) {
  const auto assign = [&field, range](const Value& value) {
    if (is_auto<Text>(value)) {
      field.reset();
      return true;
    }
    const std::optional<std::int64_t> number = number_in<std::int64_t, Text>(value, range.min, range.max);
    if (number.has_value()) field = *number;
    return number.has_value();
  };
  add({std::move(key), fmt::format("auto, or an integer from {} to {}", range.min, range.max), std::move(doc), effect,
       assign, [&field] { return json_or_auto(field); }, "", false});
}

void ConfigReader::bind(std::string key, double& field, Range<double> range, std::string doc, Effect effect) {
  const auto assign = [&field, range](const Value& value) {
    const std::optional<double> number = number_in<double, Text>(value, range.min, range.max);
    if (number.has_value()) field = *number;
    return number.has_value();
  };
  add({std::move(key), fmt::format("a number from {} to {}", range.min, range.max), std::move(doc), effect, assign,
       [&field] { return fmt::format("{}", field); }, "", false});
}

void ConfigReader::bind(std::string key, std::optional<double>& field, Range<double> range, std::string doc,
                        Effect effect) {
  const auto assign = [&field, range](const Value& value) {
    if (is_auto<Text>(value)) {
      field.reset();
      return true;
    }
    const std::optional<double> number = number_in<double, Text>(value, range.min, range.max);
    if (number.has_value()) field = *number;
    return number.has_value();
  };
  add({std::move(key), fmt::format("auto, or a number from {} to {}", range.min, range.max), std::move(doc), effect,
       assign, [&field] { return json_or_auto(field); }, "", false});
}

void ConfigReader::bind(std::string key, bool& field, std::string doc, Effect effect) {
  const auto assign = [&field](const Value& value) {
    if (const auto* truth = std::get_if<bool>(&value)) {
      field = *truth;
      return true;
    }
    const auto* text = std::get_if<Text>(&value);
    if (!text || (text->value != "true" && text->value != "false")) return false;
    field = text->value == "true";
    return true;
  };
  add({std::move(key), "true or false", std::move(doc), effect, assign,
       [&field] { return std::string(field ? "true" : "false"); }, "", false});
}

void ConfigReader::bind(std::string key, std::string& field, std::string doc, Effect effect) {
  const auto assign = [&field](const Value& value) {
    if (const auto* text = std::get_if<std::string>(&value)) {
      field = *text;
    } else if (const auto* word = std::get_if<Text>(&value)) {
      field = word->value;
    } else {
      return false;
    }
    return true;
  };
  add({std::move(key), "a text in quotes", std::move(doc), effect, assign, [&field] { return json_quote(field); }, "",
       false});
}

void ConfigReader::bind(std::string key, std::vector<std::string>& field, std::string doc, Effect effect) {
  const auto assign = [&field](const Value& value) {
    std::optional<List> list;
    if (const auto* texts = std::get_if<List>(&value)) list = *texts;
    if (const auto* text = std::get_if<std::string>(&value)) list = text->empty() ? List() : List{*text};
    if (const auto* text = std::get_if<Text>(&value)) list = parse_list(text->value);
    if (!list || std::find(list->begin(), list->end(), "") != list->end()) return false;
    field = std::move(*list);
    return true;
  };
  add({std::move(key), "a text in quotes or a list of them, [\"a\", \"b\"]", std::move(doc), effect, assign,
       [&field] { return list_as_json(field); }, "", false, true});
}

void ConfigReader::bind_choice(std::string key, std::vector<std::string> choices,
                               std::function<void(std::size_t)> set_index, std::function<std::size_t()> index,
                               std::string doc, Effect effect) {
  const auto assign = [choices, set_index](const Value& value) {
    std::string word;
    if (const auto* truth = std::get_if<bool>(&value)) word = *truth ? "true" : "false";
    if (const auto* text = std::get_if<std::string>(&value)) word = *text;
    if (const auto* text = std::get_if<Text>(&value)) word = text->value;
    const auto found = std::find(choices.begin(), choices.end(), word);
    if (found == choices.end()) return false;
    set_index(static_cast<std::size_t>(found - choices.begin()));
    return true;
  };
  std::string accepts = either(choices);
  add({std::move(key), std::move(accepts), std::move(doc), effect, assign,
       [choices, index] { return json_quote(choices[index()]); }, "", false});
}

ConfigReader::Key* ConfigReader::find(std::string_view name) {
  const auto found = std::find_if(keys_.begin(), keys_.end(), [&](const Key& key) { return key.name == name; });
  return found == keys_.end() ? nullptr : &*found;
}

void ConfigReader::report(int order, int line, const std::string& place, std::string_view text) {
  problems_.push_back({order, line, place.empty() ? std::string(text) : fmt::format("{}: {}", place, text)});
}

std::string ConfigReader::remedy_for_unknown(std::string_view name) const {
  std::vector<std::string> names, siblings, sections;
  for (const Key& key : keys_) {
    names.push_back(key.name);
    const std::string section(section_of(key.name));
    if (section == section_of(name)) siblings.push_back(key.name);
    if (sections.empty() || sections.back() != section) sections.push_back(section);
  }
  if (const std::string_view near = nearest(name, names); !near.empty()) return fmt::format("did you mean {}?", near);
  if (!siblings.empty()) return fmt::format("[{}] has {}", section_of(name), fmt::join(siblings, ", "));
  return fmt::format("remove it; the sections are {}", fmt::join(sections, ", "));
}

void ConfigReader::set(std::string_view name, const Value& value, int order, int line, const std::string& place) {
  Key* key = find(name);
  if (key == nullptr) {
    report(order, line, place, fmt::format("{}: unknown key; {}", name, remedy_for_unknown(name)));
    return;
  }
  key->place = place;
  if (key->assign(value)) return;
  key->faulty = true;
  report(order, line, place, fmt::format("{}: {} is not accepted; write {}", name, shown(value), key->accepts));
}

bool ConfigReader::read_file(const std::filesystem::path& path) {
  std::string text, reason;
  std::error_code ignored;
  if (std::filesystem::is_directory(path)) {
    reason = "it is a folder";
  } else if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored)) {
    reason = "it is a pipe or a device, and is read more than once";
  } else if (std::ifstream in(path, std::ios::binary); in) {
    text.assign(std::istreambuf_iterator<char>(in), {});
  } else {
    reason = std::strerror(errno);
  }
  if (!reason.empty()) {
    report(kFile, 0, path.string(),
           fmt::format("cannot be read ({}); give the path of a TOML file such as examples/quickstart.toml", reason));
    return false;
  }

  toml::table root;
  try {
    root = toml::parse(text, path.string());
  } catch (const toml::parse_error& error) {
    const auto line = static_cast<int>(error.source().begin.line);
    report(kFile, line, fmt::format("{}:{}", path.string(), line),
           fmt::format("not valid TOML: {}; correct this line", error.description()));
    return false;
  }

  const std::function<void(const toml::table&, const std::string&)> walk = [&](const toml::table& table,
                                                                               const std::string& prefix) {
    for (const auto& [toml_key, node] : table) {
      const std::string name = prefix + std::string(toml_key.str());
      const auto line = static_cast<int>(toml_key.source().begin.line);
      const std::string place = fmt::format("{}:{}", path.string(), line);
      const bool is_section =
          std::any_of(keys_.begin(), keys_.end(), [&](const Key& key) { return key.name.starts_with(name + '.'); });
      if (node.is_table() && (is_section || (find(name) == nullptr && !node.as_table()->empty()))) {
        walk(*node.as_table(), name + '.');
      } else if (is_section) {
        report(kFile, line, place, fmt::format("{}: is a section; write [{}] and its keys below", name, name));
      } else if (const auto truth = node.value_exact<bool>()) {
        set(name, *truth, kFile, line, place);
      } else if (const auto whole = node.value_exact<std::int64_t>()) {
        set(name, *whole, kFile, line, place);
      } else if (const auto real = node.value_exact<double>()) {
        set(name, *real, kFile, line, place);
      } else if (const auto word = node.value_exact<std::string>()) {
        set(name, *word, kFile, line, place);
      } else if (Key* key = find(name)) {  // arrays, tables, dates
        const toml::array* array = key->takes_list ? node.as_array() : nullptr;
        if (const auto texts = array == nullptr ? std::nullopt : texts_of(*array)) {
          set(name, *texts, kFile, line, place);
          continue;
        }
        key->faulty = true;
        report(kFile, line, place,
               fmt::format("{}: takes {}; write {}", name, key->takes_list ? "texts only" : "a single value",
                           key->accepts));
      } else {
        report(kFile, line, place, fmt::format("{}: unknown key; {}", name, remedy_for_unknown(name)));
      }
    }
  };
  walk(root, "");
  return true;
}

void ConfigReader::read_override(std::string_view key_is_value) {
  const std::size_t equals = key_is_value.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    report(kCommandLine, 0, std::string(kCommandLinePlace),
           fmt::format("{}: is not an override; write key=value", json_quote(key_is_value)));
    return;
  }
  set(key_is_value.substr(0, equals), Text{std::string(key_is_value.substr(equals + 1))}, kCommandLine, 0,
      std::string(kCommandLinePlace));
}

ConfigReader::Source ConfigReader::source(std::string_view key) const {
  const auto found = std::find_if(keys_.begin(), keys_.end(), [&](const Key& each) { return each.name == key; });
  STRAKE_CHECK(found != keys_.end(), "no such key: " + std::string(key));
  if (found->place.empty()) return Source::kDefault;
  return found->place == kCommandLinePlace ? Source::kCommandLine : Source::kFile;
}

bool ConfigReader::sound(std::initializer_list<std::string_view> keys) const {
  return std::none_of(keys_.begin(), keys_.end(), [&](const Key& key) {
    return key.faulty && std::find(keys.begin(), keys.end(), key.name) != keys.end();
  });
}

void ConfigReader::problem(std::string_view key, std::string_view text) {
  Key* bound = find(key);
  STRAKE_CHECK(bound != nullptr, "no such key: " + std::string(key));
  bound->faulty = true;
  report(kContradiction, 0, bound->place, fmt::format("{}: {}", key, text));
}

void ConfigReader::finish() const {
  if (problems_.empty()) return;
  std::vector<Problem> sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return std::pair(a.order, a.line) < std::pair(b.order, b.line);
  });
  std::string message;
  for (const Problem& problem : sorted) {
    if (!message.empty()) message += '\n';
    message += problem.text;
  }
  throw ConfigError(message);
}

std::string ConfigReader::json(bool results_only) const {
  std::string out = "{", section;
  for (const Key& key : keys_) {
    if (results_only && key.effect == Effect::kNone) continue;
    const std::string_view own = section_of(key.name);
    if (own != section) {
      out += fmt::format("{}{}: {{", section.empty() ? "" : "}, ", json_quote(own));
      section = own;
    } else {
      out += ", ";
    }
    out += fmt::format("{}: {}", json_quote(std::string_view(key.name).substr(own.size() + 1)), key.json());
  }
  return out + (section.empty() ? "}" : "}}");
}

std::string ConfigReader::to_json() const { return json(false); }
std::string ConfigReader::results_json() const { return json(true); }

std::vector<ConfigReader::KeyInfo> ConfigReader::keys() const {
  std::vector<KeyInfo> infos;
  for (const Key& key : keys_) infos.push_back({key.name, key.accepts, key.json(), key.doc});
  return infos;
}

}  // namespace strake
