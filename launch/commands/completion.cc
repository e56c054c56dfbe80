#include "launch/commands/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>
#include <vector>

#include "launch/commands/command_help.h"
#include "launch/config.h"

namespace strake::launch {
namespace {

// What may stand at a place of the command line.
struct Place {
  std::string words;  // separated by blanks
  bool files = false;
};

// "auto|cpu|cuda" is a choice of words; what is in capitals may be a path.
Place place_of(const CLI::Option& option) {
  const std::string type = option.get_type_size() == 0 ? "" : option.get_type_name();
  const auto is_word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '|'; };
  if (std::all_of(type.begin(), type.end(), is_word)) {
    std::string words = type;
    std::replace(words.begin(), words.end(), '|', ' ');
    return {words, false};
  }
  return {"", takes_path(option)};
}

// "auto, cpu or cuda" and "true or false" are words, "an integer from 1 to 5" is not.
std::string words_of_key(const ConfigReader::KeyInfo& key) {
  std::string words;
  std::string word;
  std::vector<std::string> parts;
  for (const char c : key.accepts + " ") {
    if (c != ' ' && c != ',') {
      word += c;
    } else if (!word.empty()) {
      parts.push_back(std::move(word));
      word.clear();
    }
  }
  if (parts.size() < 3 || parts[parts.size() - 2] != "or") return "";
  for (const std::string& part : parts) {
    if (part != "or") words += (words.empty() ? "" : " ") + part;
  }
  return words;
}

// The branches of `case` statements, in words that bash and zsh share. A command is named by its path: "" or
// " ckpt list".
// `files` of a place: 1 any, 2 folders only.
struct Cases {
  std::string commands;  // path and word -> at
  std::string values;    // path and option -> what its value may be
  std::string places;    // path -> what else may stand there
  std::string keys;      // key of a configuration -> what its value may be
};

// `help` takes the names of commands, and those of their commands: no options, no files.
void add_explained(const CLI::App& app, const std::string& path, std::vector<std::string>& words, Cases& cases) {
  for (const CLI::App* command : commands_of(app)) {
    words.push_back(command->get_name());
    if (commands_of(*command).empty()) continue;
    const std::string inner_path = path + " " + command->get_name();
    std::vector<std::string> inner;
    add_explained(*command, inner_path, inner, cases);
    cases.commands += fmt::format("      '{0}') at='{0}' ;;\n", inner_path);
    cases.places += fmt::format("      '{}') choices='{}' files=0 keys=0 ;;\n", inner_path, fmt::join(inner, " "));
  }
}

void add_cases(const CLI::App& app, const std::string& path, Cases& cases) {
  std::vector<std::string> words;
  for (const CLI::App* command : commands_of(app)) {
    words.push_back(command->get_name());
    cases.commands += fmt::format("      '{0} {1}') at='{0} {1}' ;;\n", path, command->get_name());
    add_cases(*command, path + " " + command->get_name(), cases);
  }
  if (app.get_name() == "help") add_explained(*app.get_parent(), path, words, cases);
  bool files = false, keys = false;
  for (const CLI::Option* option : app.get_options()) {
    const Place place = place_of(*option);
    if (option->get_positional()) {
      files = files || place.files;
      keys = keys || option->get_type_name() == "key=value";
      if (!place.words.empty()) words.push_back(place.words);
      continue;
    }
    for (const std::string& name : option->get_lnames()) {
      words.push_back("--" + name);
      if (option->get_items_expected_max() == 0) continue;  // a switch
      cases.values +=
          fmt::format("    '{} --{}') choices='{}' files={} ;;\n", path, name, place.words, place.files ? 1 : 0);
    }
  }
  cases.places += fmt::format("      '{}') choices='{}' files={} keys={} ;;\n", path, fmt::join(words, " "),
                              files ? 1 : 0, keys ? 1 : 0);
}

// What each script fills in; a brace of the shell is doubled.
constexpr std::string_view kBash = R"sh(# bash completion of strake, made by `strake completion bash`.

_strake() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} key= at= choices= files=0 keys=0 i
  # bash makes words of their own of `key`, `=` and `value`, and of `--option`, `=` and `value`.
  if [[ $cur == '=' ]]; then key=$prev cur=; elif [[ $prev == '=' ]]; then key=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  if [[ $key == --* ]]; then prev=$key key=; fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at ${{COMP_WORDS[i]}}" in
{commands}    esac
  done
  case "$at $prev" in
{values}    *)
      case $at in
{places}      esac ;;
  esac
  if [[ -n $key ]]; then
    ((keys)) || return
    keys=0 choices= files=0
    case $key in
{keys}    esac
  fi
  local found=()
  COMPREPLY=($(compgen -W "$choices" -- "$cur"))
  if ((keys)) && [[ $cur != -* ]]; then
    found=($(compgen -W "{names}" -S = -- "$cur"))
    if ((${{#found[@]}})); then
      compopt -o nospace 2>/dev/null
      COMPREPLY+=("${{found[@]}}")
    fi
  fi
  if ((files)); then
    local IFS=$'\n' kind=-f
    ((files == 2)) && kind=-d
    # As the name of a file `key=` would be quoted: `key\=`.
    ((${{#found[@]}})) || compopt -o filenames 2>/dev/null
    COMPREPLY+=($(compgen $kind -- "$cur"))
  fi
}}
complete -F _strake strake
)sh";

constexpr std::string_view kZsh = R"sh(#compdef strake
# zsh completion of strake, made by `strake completion zsh`.

_strake() {{
  local prev=$words[CURRENT-1] at= choices= files=0 keys=0 i
  if [[ $PREFIX == --*=* ]]; then prev=${{PREFIX%%=*}}; compset -P '*='; fi
  for ((i = 2; i < CURRENT; i++)); do
    case "$at $words[i]" in
{commands}    esac
  done
  case "$at $prev" in
{values}    *)
      case $at in
{places}      esac ;;
  esac
  if ((keys)) && [[ $PREFIX == *=* ]]; then
    local key=${{PREFIX%%=*}}
    compset -P '*='
    keys=0 choices= files=0
    case $key in
{keys}    esac
  fi
  [[ -z $choices ]] || compadd -- ${{=choices}}
  ((keys)) && compadd -S = -- {names}
  ((files == 1)) && _files
  ((files == 2)) && _files -/
  return 0
}}
# Loaded by compinit this is the body of the function; read by `source` it makes itself known.
if [[ $funcstack[1] == _strake ]]; then _strake "$@"; else compdef _strake strake; fi
)sh";

std::string fill(std::string_view script, const CLI::App& program) {
  Cases cases;
  add_cases(program, "", cases);
  std::vector<std::string> names;
  for (const ConfigReader::KeyInfo& key : config_keys()) {
    names.push_back(key.name);
    if (const std::string words = words_of_key(key); !words.empty()) {
      cases.keys += fmt::format("      {}) choices='{}' ;;\n", key.name, words);
    }
  }
  cases.keys += "      run.dir|run.kernel_cache|train.init_from) files=2 ;;\n      data.*) files=1 ;;\n";
  return fmt::format(fmt::runtime(script), fmt::arg("commands", cases.commands), fmt::arg("values", cases.values),
                     fmt::arg("places", cases.places), fmt::arg("keys", cases.keys),
                     fmt::arg("names", fmt::format("{}", fmt::join(names, " "))));
}

}  // namespace

std::string bash_completion(const CLI::App& program) { return fill(kBash, program); }
std::string zsh_completion(const CLI::App& program) { return fill(kZsh, program); }

}  // namespace strake::launch
