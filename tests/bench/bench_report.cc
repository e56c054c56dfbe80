#include "tests/bench/bench_report.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "launch/machine/machine.h"

namespace strake::bench {

BenchOptions parse_options(int argc, char** argv, std::string_view question, int default_repeats, bool on_gpus_too) {
  BenchOptions options{.repeats = default_repeats};
  std::string device = "cpu";
  CLI::App app{std::string(question)};
  app.add_option("--repeats", options.repeats, "How often everything is measured")->check(CLI::Range(1, 1000));
  app.add_flag("--json", options.json, "Print one JSON object");
  app.add_flag("--smoke", options.smoke, "Tiny sizes, about a second, judges nothing");
  if (on_gpus_too) {
    app.add_option("--device", device, "What the ranks run on")->check(CLI::IsMember({"cpu", "cuda"}));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 2);
  }
  if (options.smoke) options.repeats = 1;
  options.gpus = device == "cuda";
  return options;
}

BenchReport::BenchReport(std::string name, std::string question, BenchOptions options) : options_(options) {
  const launch::Machine machine = launch::read_machine();
  const launch::Build build = launch::build_description();
  json_["bench"] = name;
  json_["question"] = question;
  json_["machine"] = {{"cpu", machine.cpu},        {"cores", machine.cores}, {"memory_bytes", machine.memory_bytes},
                      {"os", machine.os},          {"commit", build.commit}, {"build", build.type},
                      {"compiler", build.compiler}};
  json_["repeats"] = options.repeats;
  json_["smoke"] = options.smoke;
  json_["measured"] = nlohmann::ordered_json::object();
  json_["said"] = nlohmann::ordered_json::array();
  json_["verdicts"] = nlohmann::ordered_json::array();
  if (options.json) return;
  fmt::print("== {}: {}\n   {}, {} cores; {}; {} build of {}, {}; {} repeats\n", name, question, machine.cpu,
             machine.cores, machine.os, build.type, build.commit, build.compiler, options.repeats);
  std::fflush(stdout);
}

void BenchReport::measured(const std::string& what, const std::string& unit, const std::vector<double>& samples) {
  const Spread spread = spread_of(samples);
  json_["measured"][what] = {
      {"unit", unit}, {"median", spread.median}, {"low", spread.low}, {"high", spread.high}, {"samples", samples}};
  if (options_.json) return;
  fmt::print("   {:<48}{:>10.3f} {:<8} ({:.3f} .. {:.3f}, n = {})\n", what, spread.median, unit, spread.low,
             spread.high, samples.size());
  std::fflush(stdout);
}

void BenchReport::say(const std::string& text) {
  json_["said"].push_back(text);
  if (options_.json) return;
  std::string indented = "   ";
  for (const char c : text) {
    indented += c;
    if (c == '\n') indented += "   ";
  }
  fmt::print("{}\n", indented);
  std::fflush(stdout);
}

void BenchReport::verdict(const std::string& target, bool holds, const std::string& found) {
  const char* word = options_.smoke ? "not judged" : holds ? "holds" : "DOES NOT HOLD";
  json_["verdicts"].push_back({{"target", target}, {"verdict", word}, {"found", found}});
  if (options_.json) return;
  fmt::print("   verdict: {}: {} ({})\n", target, word, found);
  std::fflush(stdout);
}

int BenchReport::finish() {
  if (options_.json) fmt::print("{}\n", json_.dump(2));
  return 0;
}

}  // namespace strake::bench
