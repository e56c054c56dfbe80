#include "launch/commands/command_help.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "launch/config.h"
#include "runtime/base/text.h"

namespace strake::launch {
namespace {

constexpr std::string_view kPaths[] = {"FILE", "FOLDER", "RUN", "CHECKPOINT", "CONFIG"};

struct Example {
  std::string_view command;
  std::string_view lines;
};
constexpr Example kExamples[] = {
    {"strake",
     "  strake data prepare book.txt --train train.bin --val val.bin\n"
     "  strake train quickstart.toml data.train=train.bin data.val=val.bin run.dir=runs/book\n"
     "  strake generate runs/book --prompt \"Once upon a time\"\n"
     "`strake COMMAND --help` explains a command, `strake info --keys` every key of a configuration."},
    {"strake train",
     "  strake train quickstart.toml run.dir=runs/book train.steps=2000\n"
     "  mpirun --allow-run-as-root --bind-to none --oversubscribe -n 2 strake train quickstart.toml run.dir=runs/book\n"
     "The same command goes on with a run that has stopped. `strake info --keys` explains every key."},
    {"strake plan",
     "  strake plan examples/llama-1b.toml --ranks 8 --device cuda --memory 80GiB\n"
     "  strake plan quickstart.toml train.micro_batch=32 --json"},
    {"strake bench", "  strake bench step quickstart.toml --random-data"},
    {"strake bench step",
     "  strake bench step quickstart.toml --random-data --steps 50 train.micro_batch=8\n"
     "  mpirun --allow-run-as-root --bind-to none --oversubscribe -n 2 strake bench step quickstart.toml --calibrate"},
    {"strake bench kernels",
     "  strake bench kernels quickstart.toml --random-data --json > before.json\n"
     "  strake bench kernels quickstart.toml --random-data --against before.json"},
    {"strake bench comm",
     "  mpirun --allow-run-as-root --bind-to none --oversubscribe -n 2 strake bench comm --max 64MiB\n"
     "  strake bench comm --threads 4 --only all_reduce,all_gather --json"},
    {"strake bench checkpoint",
     "  strake bench checkpoint quickstart.toml --random-data --strategies sync,lazy\n"
     "  strake bench checkpoint examples/llama-1b.toml --random-data --folder /scratch --folder /dev/shm --json"},
    {"strake verify-overlap",
     "  strake verify-overlap quickstart.toml --ranks 3\n"
     "  strake verify-overlap quickstart.toml --random-data model.vocab=256 --variants \"late\" --variants "
     "\"recompute\""},
    {"strake data", "  strake data prepare book.txt --train train.bin --val val.bin"},
    {"strake data prepare", "  strake data prepare book.txt --train train.bin --val val.bin"},
    {"strake generate", "  strake generate runs/book --prompt \"Once upon a time\" --tokens 400 --seed 7"},
    {"strake import",
     "  strake import gpt2/ --run runs/tuned\n"
     "then `strake train CONFIG.toml run.dir=runs/tuned`, with the keys of the model that import prints."},
    {"strake export",
     "  strake export runs/book --out book-gpt2/ --dtype bf16\n"
     "  strake export runs/large --out large-llama/ --max-shard-size 5GB"},
    {"strake ckpt", "  strake ckpt list runs/book"},
    {"strake ckpt list", "  strake ckpt list runs/book\n  strake ckpt list runs/book --verify --json"},
    {"strake ckpt verify",
     "  strake ckpt verify runs/book/ckpt/step-00001000\n"
     "The exit code is 0 only if every byte of every checkpoint named is as it was written."},
    {"strake ckpt view", "  strake ckpt view runs/book --out book.h5"},
    {"strake ckpt diff", "  strake ckpt diff runs/book runs/book/ckpt/step-00001000"},
    {"strake ckpt prune",
     "  strake ckpt prune runs/book --keep 2 --keep-every 1000 --dry-run\n"
     "  strake ckpt prune runs/book --keep 1 --keep-best 3"},
    {"strake ckpt convert", "  strake ckpt convert runs/old --run runs/new"},
    {"strake info", "  strake info\n  strake info --keys"},
    {"strake completion",
     "  strake completion bash > ~/.local/share/bash-completion/completions/strake\n"
     "  strake completion zsh > \"${fpath[1]}/_strake\""},
    {"strake help", "  strake help ckpt verify"},
};

std::string full_name(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name() : full_name(*app.get_parent()) + " " + app.get_name();
}

// "CONFIG.toml", "NUMBER"; empty: a switch.
std::string type_of(const CLI::Option& option) {
  if (option.get_type_size() == 0) return "";
  std::string type = option.get_type_name();
  return type == "INT" || type == "UINT" || type == "FLOAT" ? "NUMBER" : type;
}

// What people write for an argument: "CONFIG.toml", "--tokens NUMBER".
std::string spelled(const CLI::Option& option) {
  const std::string type = type_of(option);
  if (option.get_positional()) return type;
  return option.get_name(false, true) + (type.empty() ? "" : " " + type);
}

class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() {
    column_width(34);
    label("Positionals", "Arguments");
  }

  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string out = "Usage: " + name;
    const auto options = app->get_options([](const CLI::Option* option) { return option->nonpositional(); });
    if (!commands_of(*app).empty()) return out + " COMMAND\n";
    for (const CLI::Option* option : options) {
      if (option->get_required()) out += " " + spelled(*option);
    }
    if (options.size() > 1) out += " [OPTIONS]";  // than --help
    for (const CLI::Option* option : app->get_options([](const CLI::Option* each) { return each->get_positional(); })) {
      const bool many = option->get_expected_max() >= CLI::detail::expected_max_vector_size;
      out += option->get_required() ? fmt::format(" {}{}", spelled(*option), many ? "..." : "")
                                    : fmt::format(" [{}{}]", spelled(*option), many ? "..." : "");
    }
    return out + "\n";
  }
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    return is_positional ? type_of(*option) : option->get_name(false, true);
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    const std::string type = type_of(*option);
    return option->get_positional() || type.empty() ? "" : " " + type;
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    std::string text = option->get_description();
    if (!option->get_positional() && option->get_required()) text += " (required)";
    if (!option->get_default_str().empty()) text += fmt::format(" [{}]", option->get_default_str());
    return text;
  }
  std::string make_subcommands(const CLI::App* app, CLI::AppFormatMode) const override {
    if (commands_of(*app).empty()) return "";
    std::string out = "\nCommands:\n";
    for (const CLI::App* command : commands_of(*app)) out += make_subcommand(command);
    return out;
  }
};

void make_help_of(CLI::App& command, const std::shared_ptr<HelpFormatter>& formatter) {
  command.formatter(formatter);
  const std::string name = full_name(command);
  const auto* const found = std::find_if(std::begin(kExamples), std::end(kExamples),
                                         [&](const Example& each) { return each.command == name; });
  if (found != std::end(kExamples)) command.footer(fmt::format("Example:\n{}", found->lines));
  for (CLI::App* inner : command.get_subcommands([](CLI::App*) { return true; })) make_help_of(*inner, formatter);
}

// The innermost command that was named.
const CLI::App& named(const CLI::App& app) {
  const auto commands = app.get_subcommands();
  return commands.empty() ? app : named(*commands.front());
}

ConfigError problem_of(const CLI::App& command, const std::string& what) {
  return ConfigError(fmt::format("{}: {}; see `{} --help`", full_name(command), what, full_name(command)));
}

// What `word` may have been meant to be, as a question; else what there is.
std::string meant(const CLI::App& command, const std::string& word) {
  std::vector<std::string> commands, options;
  for (const CLI::App* inner : commands_of(command)) commands.push_back(inner->get_name());
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
  }
  std::vector<std::string> valid = commands;
  valid.insert(valid.end(), options.begin(), options.end());
  const std::string name = word.substr(0, word.find('='));
  if (const std::string_view near = nearest(name, valid); !near.empty()) return fmt::format("did you mean {}?", near);
  if (name.size() > 2) {
    const auto longer =
        std::find_if(valid.begin(), valid.end(), [&](const auto& each) { return each.starts_with(name); });
    if (longer != valid.end()) return fmt::format("did you mean {}?", *longer);
  }
  if (name.starts_with("--") &&
      !command.get_options([](const CLI::Option* option) { return option->get_type_name() == "key=value"; }).empty()) {
    std::vector<std::string> keys;
    for (const auto& key : config_keys()) keys.push_back(key.name);
    if (const std::string_view near = nearest(name.substr(2), keys); !near.empty()) {
      return fmt::format("keys are written without dashes: did you mean {}=VALUE?", near);
    }
  }
  if (!commands.empty()) return fmt::format("write one of {}", fmt::join(commands, ", "));
  return fmt::format("its options are {}", fmt::join(options, ", "));
}

ConfigError unknown_word(const CLI::App& command, const std::string& word) {
  return problem_of(command, fmt::format("{} is not known; {}", json_quote(word), meant(command, word)));
}

}  // namespace

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

bool takes_path(const CLI::Option& option) {
  const std::string type = type_of(option);
  if (type == "TEXT") return option.get_positional();  // as an option it is the text itself
  return std::any_of(std::begin(kPaths), std::end(kPaths),
                     [&](std::string_view path) { return type.starts_with(path); });
}

void make_help(CLI::App& program) { make_help_of(program, std::make_shared<HelpFormatter>()); }

void require_commands(const CLI::App& program, const std::vector<std::string>& words) {
  const CLI::App* command = &program;
  for (const std::string& word : words) {
    const std::vector<const CLI::App*> commands = commands_of(*command);
    const auto inner =
        std::find_if(commands.begin(), commands.end(), [&](const CLI::App* each) { return each->get_name() == word; });
    if (inner == commands.end()) throw unknown_word(*command, word);
    command = *inner;
  }
}

ConfigError parse_problem(const CLI::App& program, const CLI::ParseError& error) {
  const CLI::App& command = named(program);
  const auto say = [&](const std::string& what) { return problem_of(command, what); };
  const std::vector<std::string> unknown = program.remaining(true);
  if (!unknown.empty()) return unknown_word(command, unknown.front());
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError)) {
    std::vector<std::string> missing;
    for (const CLI::Option* option : command.get_options()) {
      if (option->get_required() && option->count() == 0) missing.push_back(spelled(*option));
    }
    if (!missing.empty())
      return say(fmt::format("{} {} missing", fmt::join(missing, " and "), missing.size() > 1 ? "are" : "is"));
    return say(fmt::format("a command is missing; {}", meant(command, "")));
  }
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ArgumentMismatch)) {
    for (const CLI::Option* option : command.get_options()) {
      if (!option->get_positional() &&
          std::string_view(error.what()).find(option->get_name()) != std::string_view::npos) {
        return say(fmt::format("{}: takes one value; write {}", option->get_name(), spelled(*option)));
      }
    }
  }
  // What is left is about one value: "--tokens: ...".
  std::string text = error.what();
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return say(text);
}

}  // namespace strake::launch
