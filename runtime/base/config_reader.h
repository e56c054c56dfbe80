// ConfigReader fills plain fields from a TOML file and key=value overrides, and finds every mistake in
// one pass: unknown keys (with the nearest valid name), wrong types, values out of range, each with
// file and line. Nothing is thrown until finish(), so that one run shows all of them.
//
//   ConfigReader reader;
//   reader.bind("train.steps", config.steps, {1, 1'000'000}, "Optimizer steps of the whole run.");
//   reader.read_file("gpt.toml");
//   reader.read_override("train.steps=10");
//   if (reader.sound({"train.steps"}) && odd(config.steps)) reader.problem("train.steps", "is odd; use an even
//   number"); reader.finish();
//
// The same table of keys writes the values back (to_json) and documents them (keys).
// Lifetime: bound fields outlive the reader. Threads: one. Errors: ConfigError from finish() only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace strake {

class ConfigReader {
 public:
  template <typename T>
  struct Range {  // both ends included
    T min;
    T max;
  };
  // Whether two runs that differ in this key only are meant to give the same bits.
  enum class Effect { kResults, kNone };

  // `key` is "section.name". The field holds the default until a value replaces it.
  void bind(std::string key, std::int64_t& field, Range<std::int64_t> range, std::string doc,
            Effect effect = Effect::kResults);
  // The same, or the word "auto" for nullopt.
  void bind(std::string key, std::optional<std::int64_t>& field, Range<std::int64_t> range, std::string doc,
            Effect effect = Effect::kResults);
  void bind(std::string key, double& field, Range<double> range, std::string doc, Effect effect = Effect::kResults);
  void bind(std::string key, std::optional<double>& field, Range<double> range, std::string doc,
            Effect effect = Effect::kResults);
  void bind(std::string key, bool& field, std::string doc, Effect effect = Effect::kResults);
  void bind(std::string key, std::string& field, std::string doc, Effect effect = Effect::kResults);
  // Any number of texts. TOML: "a" or ["a", "b"]; an override may also say a,b. The empty text is the empty list.
  void bind(std::string key, std::vector<std::string>& field, std::string doc, Effect effect = Effect::kResults);
  // One of a few words. A TOML boolean is taken for the word `true` or `false` if that is among them.
  template <typename Enum>
  void bind(std::string key, Enum& field, std::vector<std::pair<std::string, Enum>> choices, std::string doc,
            Effect effect = Effect::kResults);

  // Later values replace earlier ones. False: the file could not be read or is not TOML, none of it counts.
  bool read_file(const std::filesystem::path& path);
  void read_override(std::string_view key_is_value);

  // Where the value of `key` came from last; a later source has the greater value.
  enum class Source { kDefault, kFile, kCommandLine };
  Source source(std::string_view key) const;
  // No problem was met with these keys: a check that compares them makes sense.
  bool sound(std::initializer_list<std::string_view> keys) const;
  // Reports a contradiction at the place where `key` was set. `text` says what is wrong and what to do.
  void problem(std::string_view key, std::string_view text);
  // Throws ConfigError with every problem, one a line, in the order of file, command line, contradictions.
  void finish() const;

  // The values of all keys as JSON, nested by section, keys in the order they were bound. One line.
  std::string to_json() const;
  // The same, only keys with Effect::kResults.
  std::string results_json() const;

  struct KeyInfo {
    std::string name;
    std::string accepts;  // "integer, 1 to 1000000", "true or false", "auto, cpu or cuda"
    std::string value;    // as JSON
    std::string doc;
  };
  std::vector<KeyInfo> keys() const;

 private:
  struct Text {  // an override: its type follows from the key
    std::string value;
  };
  using List = std::vector<std::string>;
  using Value = std::variant<bool, std::int64_t, double, std::string, Text, List>;
  struct Key {
    std::string name;
    std::string accepts;
    std::string doc;
    Effect effect;
    std::function<bool(const Value&)> assign;  // false: not accepted
    std::function<std::string()> json;
    std::string place;  // where it was set last; empty: default
    bool faulty = false;
    bool takes_list = false;
  };

  void add(Key key);
  Key* find(std::string_view name);
  void set(std::string_view name, const Value& value, int order, int line, const std::string& place);
  void report(int order, int line, const std::string& place, std::string_view text);
  std::string remedy_for_unknown(std::string_view name) const;
  std::string json(bool results_only) const;
  void bind_choice(std::string key, std::vector<std::string> choices, std::function<void(std::size_t)> set_index,
                   std::function<std::size_t()> index, std::string doc, Effect effect);

  struct Problem {
    int order;  // 0 file, 1 command line, 2 contradiction
    int line;
    std::string text;
  };
  std::vector<Key> keys_;
  std::vector<Problem> problems_;
};

template <typename Enum>
void ConfigReader::bind(std::string key, Enum& field, std::vector<std::pair<std::string, Enum>> choices,
                        std::string doc, Effect effect) {
  std::vector<std::string> words;
  std::vector<Enum> values;
  for (auto& [word, value] : choices) {
    words.push_back(std::move(word));
    values.push_back(value);
  }
  bind_choice(
      std::move(key), std::move(words), [&field, values](std::size_t i) { field = values[i]; },
      [&field, values] {
        std::size_t i = 0;
        while (i + 1 < values.size() && values[i] != field) ++i;
        return i;
      },
      std::move(doc), effect);
}

}  // namespace strake
