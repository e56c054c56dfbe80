// strake: the program. Parses the command line, runs the command, maps errors to exit codes (README.md).
#include <chrono>
#include <exception>
#include <thread>

#include "launch/command_line.h"
#include "launch/exit_report.h"
#include "launch/rank_environment.h"
#include "runtime/base/error.h"

int main(int argc, char** argv) {
  using namespace strake;
  const auto rank = launch::RankEnvironment::detect();
  try {
    return launch::run_command_line(argc, argv);
  } catch (const ConfigError& error) {
    // Nearly always the same on every rank: rank 0 has the word, and the launcher ends us while we wait.
    if (rank.rank != 0) std::this_thread::sleep_for(std::chrono::seconds(3));
    return launch::report_error(error, rank.rank, rank.ranks);
  } catch (const std::exception& error) {
    return launch::report_error(error, rank.rank, rank.ranks);
  }
}
