// KernelComparison: two outputs of `strake bench kernels --json` side by side, by operation and shape.
// Threads: values. Errors: ConfigError naming the file.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/bench/kernel_figures.h"
#include "runtime/io/files.h"

namespace strake::launch {

// What a comparison needs of an output.
struct KernelTimes {
  struct Row {
    std::string operation, shape;
    std::int64_t calls = 0;
    double step_ms = 0;
  };
  std::string device, config_hash;
  double step_ms = 0, operations_ms = 0;
  std::vector<Row> rows;  // an operation and shape once

  static KernelTimes of(const KernelFigures& figures, const std::string& config_hash);
};

// Throws ConfigError if the file cannot be read or was not written by `strake bench kernels --json`.
KernelTimes read_kernel_times(Files& files, const std::filesystem::path& path);

struct KernelComparison {
  struct Row {
    std::string operation, shape;
    std::int64_t earlier_calls = 0, calls = 0;  // a step; 0: there are none
    double earlier_ms = 0, ms = 0;              // of a step
    double difference_ms() const { return ms - earlier_ms; }
    std::optional<double> ratio() const;  // none where one has none
  };
  std::string against;  // the file
  KernelTimes earlier, now;
  std::vector<Row> rows;  // what became faster first
};
KernelComparison compare(std::string against, KernelTimes earlier, KernelTimes now);

nlohmann::ordered_json to_json(const KernelComparison& comparison);
// For people; no newline at the end.
std::string table(const KernelComparison& comparison);

}  // namespace strake::launch
