// BenchProgram: a fixture for `strake bench COMMAND`, the real program on a small job, alone (0) or as so many ranks.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/integration/program_job.h"

namespace strake::test {

class BenchProgram : public testing::TestWithParam<int> {
 protected:
  explicit BenchProgram(std::string command) : command_(std::move(command)) {}

  int ranks() const { return GetParam(); }  // 0: without a launcher
  std::size_t expected_ranks() const { return static_cast<std::size_t>(std::max(1, ranks())); }

  ProgramEnd bench(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"bench", command_, job_.config_path().string(),
                                       "run.dir=" + job_.run_folder("run").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return StrakeProgram::run(ranks(), arguments, job_.folder());
  }
  // What the bench leaves beside the job's own files.
  std::vector<std::string> leftovers() const {
    PosixFiles files;
    std::vector<std::string> out;
    for (const std::string& name : files.list(job_.folder())) {
      if (name.starts_with("run")) out.push_back(name);
    }
    return out;
  }
  static nlohmann::json parse(const ProgramEnd& end) {
    const nlohmann::json json = nlohmann::json::parse(end.output, nullptr, false);  // the whole output: nothing else
    EXPECT_TRUE(json.is_object()) << end.output;
    return json.is_object() ? json : nlohmann::json::object();
  }

  ProgramJob job_;

 private:
  const std::string command_;
};

inline std::string ranks_name(const testing::TestParamInfo<int>& tested) {
  return tested.param == 0 ? std::string("Alone") : "Ranks" + std::to_string(tested.param);
}

}  // namespace strake::test
