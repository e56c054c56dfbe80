// StrakeProgram: the real program as a child process, alone or as ranks under mpirun, with what it says and how it
// ends.
//
// It never outlives the object. Threads: one. Errors: std::runtime_error if it cannot be started.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace strake::test {

struct ProgramEnd {
  int exit_code = -1;  // -1: it was killed
  int signal = 0;      // that killed it
  bool hung = false;   // it had not ended in time and was killed for it
  std::string output;  // standard output and error

  // Lines that report the error, without "strake: error: ".
  std::vector<std::string> errors() const;
};

struct ProgramLimits {
  std::int64_t file_bytes = 0;  // largest file it may write, as on a full disk: writes fail. 0: no limit
};

// One rank of a job whose ranks are not started alike.
struct OddRank {
  std::vector<std::string> arguments;
  std::filesystem::path folder = {};   // it is started in; empty: the test's own
  std::filesystem::path program = {};  // empty: the program under test
};

class StrakeProgram {
 public:
  // `ranks` 0: without a launcher. `folder`: for its output.
  StrakeProgram(int ranks, std::vector<std::string> arguments, const std::filesystem::path& folder,
                ProgramLimits limits = {});
  // A rank for each, under one mpirun.
  StrakeProgram(const std::vector<OddRank>& ranks, const std::filesystem::path& folder);
  ~StrakeProgram();
  StrakeProgram(const StrakeProgram&) = delete;
  StrakeProgram& operator=(const StrakeProgram&) = delete;

  // Waits for its end; kills it when it takes longer than `limit`, far above any slow machine.
  ProgramEnd wait(std::chrono::seconds limit = std::chrono::seconds(100));
  bool running();
  // So far.
  std::string output() const;
  // To the program, or to mpirun, which passes SIGUSR1 on to all ranks.
  void send(int signal);
  // SIGKILL to every rank at once, and no word to mpirun.
  void kill_ranks();
  // Processes of the ranks that have started, in the order of their start, which is that of the ranks.
  std::vector<pid_t> rank_processes() const;
  // Every one of `ranks` processes handles `signal` itself by now.
  bool ranks_handle(int signal, std::size_t ranks) const;

  static ProgramEnd run(int ranks, std::vector<std::string> arguments, const std::filesystem::path& folder,
                        ProgramLimits limits = {});

 private:
  void start(const std::vector<std::string>& words, const std::filesystem::path& folder, ProgramLimits limits);

  int ranks_;
  std::filesystem::path output_path_;
  pid_t process_ = -1;
  bool ended_ = false;
  int status_ = 0;
};

}  // namespace strake::test
