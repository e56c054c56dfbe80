#include "tests/integration/strake_program.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <thread>

namespace strake::test {
namespace {

// "mpirun --bind-to none ..." as the build found it.
std::vector<std::string> launcher_words(int ranks) {
  std::istringstream text(STRAKE_MPIRUN);
  std::vector<std::string> words;
  for (std::string word; text >> word;) words.push_back(word);
  words.insert(words.end(), {"-n", std::to_string(ranks)});
  return words;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

std::vector<std::string> ProgramEnd::errors() const {
  constexpr std::string_view kPrefix = "strake: error: ";
  std::vector<std::string> lines;
  std::istringstream text(output);
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with(kPrefix)) lines.push_back(line.substr(kPrefix.size()));
  }
  return lines;
}

StrakeProgram::StrakeProgram(int ranks, std::vector<std::string> arguments, const std::filesystem::path& folder,
                             ProgramLimits limits)
    : ranks_(ranks) {
  std::vector<std::string> words;
  if (ranks > 0) words = launcher_words(ranks);
  words.emplace_back(STRAKE_PROGRAM);
  words.insert(words.end(), arguments.begin(), arguments.end());
  start(words, folder, limits);
}

StrakeProgram::StrakeProgram(const std::vector<OddRank>& ranks, const std::filesystem::path& folder)
    : ranks_(static_cast<int>(ranks.size())) {
  std::vector<std::string> words = launcher_words(1);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    if (rank > 0) words.insert(words.end(), {":", "-n", "1"});
    if (!ranks[rank].folder.empty()) words.insert(words.end(), {"-wdir", ranks[rank].folder.string()});
    words.push_back(ranks[rank].program.empty() ? std::string(STRAKE_PROGRAM) : ranks[rank].program.string());
    words.insert(words.end(), ranks[rank].arguments.begin(), ranks[rank].arguments.end());
  }
  start(words, folder, {});
}

void StrakeProgram::start(const std::vector<std::string>& words, const std::filesystem::path& folder,
                          ProgramLimits limits) {
  static std::atomic<int> started{0};
  output_path_ = folder / ("output-" + std::to_string(++started) + ".txt");
  std::vector<std::string> own = words;
  std::vector<char*> argv;
  for (std::string& word : own) argv.push_back(word.data());
  argv.push_back(nullptr);

  const int output = ::open(output_path_.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (output < 0 || nothing < 0) throw std::runtime_error("cannot open " + output_path_.string());
  process_ = ::fork();
  if (process_ == 0) {
    if (limits.file_bytes > 0) {
      const rlimit limit{static_cast<rlim_t>(limits.file_bytes), static_cast<rlim_t>(limits.file_bytes)};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      ::signal(SIGXFSZ, SIG_IGN);  // the write fails instead, as on a full disk
    }
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(output);
  ::close(nothing);
  if (process_ < 0) throw std::runtime_error("cannot start " + words[0]);
}

StrakeProgram::~StrakeProgram() {
  if (!running()) return;
  kill_ranks();
  ::kill(process_, SIGKILL);
  ::waitpid(process_, &status_, 0);
}

bool StrakeProgram::running() {
  if (!ended_) ended_ = ::waitpid(process_, &status_, WNOHANG) == process_;
  return !ended_;
}

ProgramEnd StrakeProgram::wait(std::chrono::seconds limit) {
  ProgramEnd end;
  const auto give_up = std::chrono::steady_clock::now() + limit;
  while (running()) {
    if (std::chrono::steady_clock::now() > give_up) {
      end.hung = true;
      kill_ranks();
      ::kill(process_, SIGKILL);
      ::waitpid(process_, &status_, 0);
      ended_ = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  if (WIFEXITED(status_)) end.exit_code = WEXITSTATUS(status_);
  if (WIFSIGNALED(status_)) end.signal = WTERMSIG(status_);
  end.output = output();
  return end;
}

std::string StrakeProgram::output() const { return read_text(output_path_); }

void StrakeProgram::send(int signal) {
  if (running()) ::kill(process_, signal);
}

void StrakeProgram::kill_ranks() {
  if (ranks_ == 0) return send(SIGKILL);
  for (const pid_t rank : rank_processes()) ::kill(rank, SIGKILL);
}

// mpirun's children that run the program.
std::vector<pid_t> StrakeProgram::rank_processes() const {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    // "123 (name) S 45 ...": the parent follows the state; the name may hold anything but ends at the last ')'.
    const std::string stat = read_text(entry.path() / "stat");
    const std::size_t name_end = stat.rfind(')');
    if (name_end == std::string::npos || name_end + 4 >= stat.size()) continue;
    if (std::stol(stat.substr(name_end + 4)) == process_) found.push_back(static_cast<pid_t>(std::stol(name)));
  }
  // Process numbers may wrap around; within one job they do not in any test's time.
  std::sort(found.begin(), found.end());
  return found;
}

bool StrakeProgram::ranks_handle(int signal, std::size_t ranks) const {
  const std::vector<pid_t> processes = ranks_ == 0 ? std::vector<pid_t>{process_} : rank_processes();
  if (processes.size() != ranks) return false;
  return std::all_of(processes.begin(), processes.end(), [&](pid_t process) {
    std::istringstream status(read_text(std::filesystem::path("/proc") / std::to_string(process) / "status"));
    for (std::string line; std::getline(status, line);) {
      constexpr std::string_view kCaught = "SigCgt:";
      if (!line.starts_with(kCaught)) continue;
      return ((std::stoull(line.substr(kCaught.size()), nullptr, 16) >> (signal - 1)) & 1) != 0;
    }
    return false;
  });
}

ProgramEnd StrakeProgram::run(int ranks, std::vector<std::string> arguments, const std::filesystem::path& folder,
                              ProgramLimits limits) {
  return StrakeProgram(ranks, std::move(arguments), folder, limits).wait();
}

}  // namespace strake::test
