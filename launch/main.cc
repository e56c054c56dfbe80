// strake: the program. Parses the command line, runs the command, maps errors to exit codes (README.md).
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <exception>
#include <thread>

#include "launch/commands/command_line.h"
#include "launch/job/exit_report.h"
#include "launch/job/rank_environment.h"
#include "runtime/base/error.h"

namespace {

// Where whoever started us has closed standard input, output or error, the next file opened would take its place and
// get our messages between its bytes.
void fill_standard_descriptors() {
  int descriptor;
  do {
    descriptor = ::open("/dev/null", O_RDWR);
  } while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor >= 0) ::close(descriptor);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace strake;
  fill_standard_descriptors();
  ::signal(SIGXFSZ, SIG_IGN);  // a file at its size limit is an error of the write, with its path
  std::set_terminate(launch::end_uncaught);
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
