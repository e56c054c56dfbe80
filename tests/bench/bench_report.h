// BenchReport: how a bench is started and how it answers.
//
// Every bench takes --repeats N, --json and --smoke (tiny sizes, about a second, judges nothing). It prints each
// measure as the median of its samples with their range, the machine, and a verdict line for each target. A bench
// ends with 0 whatever the verdict: machines are shared, and a person judges.
// Threads: one. Errors: a wrong option ends the program with 2.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/telemetry/spread.h"

namespace strake::bench {

struct BenchOptions {
  int repeats;
  bool json = false;   // one object on standard output instead of lines
  bool smoke = false;  // repeats is 1
  bool gpus = false;   // ranks run on GPUs
};
// `on_gpus_too`: takes --device cpu|cuda.
BenchOptions parse_options(int argc, char** argv, std::string_view question, int default_repeats,
                           bool on_gpus_too = false);

class BenchReport {
 public:
  BenchReport(std::string name, std::string question, BenchOptions options);

  // One line: median, range and number of samples.
  void measured(const std::string& what, const std::string& unit, const std::vector<double>& samples);
  // Text for people; kept in the JSON too. May hold several lines.
  void say(const std::string& text);
  // `target`: "overlap on is at least 1.4x faster than off". A smoke run says that it judges nothing.
  void verdict(const std::string& target, bool holds, const std::string& found);
  // The last line of main(): prints the JSON, if wanted. Returns the exit code.
  int finish();

 private:
  BenchOptions options_;
  nlohmann::ordered_json json_;
};

}  // namespace strake::bench
