// What happens to standard error does not happen to the training: it is a terminal of any width, a pipe that nobody
// reads, a pipe whose reader has left, a full disk, or closed. The real program, its output where the test puts it.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/program_job.h"
#include "tests/support/watchdog.h"

namespace strake::test {
namespace {

constexpr int kClosed = -1;

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

class LiveOutput : public testing::Test {
 protected:
  // Starts it with these descriptors as standard output and error. Standard input is closed.
  void start(std::vector<std::string> words, int output, int error, std::vector<std::string> variables = {}) {
    std::vector<char*> argv, environment;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::vector<std::string> all{"TERM=xterm"};
    for (char** variable = environ; *variable != nullptr; ++variable) {
      const std::string text(*variable);
      if (!text.starts_with("TERM=") && !text.starts_with("NO_COLOR=") && !text.starts_with("COLUMNS=")) {
        all.push_back(text);
      }
    }
    all.insert(all.end(), variables.begin(), variables.end());
    for (std::string& variable : all) environment.push_back(variable.data());
    environment.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclose(&actions, STDIN_FILENO);
    for (const auto& [from, to] : {std::pair(output, STDOUT_FILENO), std::pair(error, STDERR_FILENO)}) {
      from == kClosed ? posix_spawn_file_actions_addclose(&actions, to)
                      : posix_spawn_file_actions_adddup2(&actions, from, to);
    }
    ASSERT_EQ(0, ::posix_spawnp(&process_, argv[0], &actions, nullptr, argv.data(), environment.data()));
    posix_spawn_file_actions_destroy(&actions);
  }
  void start_alone(const std::string& run, const std::vector<std::string>& overrides, int output, int error,
                   const std::vector<std::string>& variables = {}) {
    std::vector<std::string> words{STRAKE_PROGRAM};
    const std::vector<std::string> arguments = job_.arguments(run, overrides);
    words.insert(words.end(), arguments.begin(), arguments.end());
    start(words, output, error, variables);
  }
  // Its exit code; the watchdog ends the test where the program hangs.
  int wait() {
    int status = 0;
    ::waitpid(process_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  void expect_whole(const std::string& run) {
    const launch::Metrics metrics = job_.metrics(run);
    EXPECT_EQ(metrics.steps.size(), static_cast<std::size_t>(ProgramJob::kSteps));
    EXPECT_EQ(metrics.evals.size(), 3u);
    EXPECT_NO_THROW({
      PosixFiles files;
      checkpoint::verify_checkpoint(files, job_.checkpoint(run, ProgramJob::kSteps));
    });
  }
  static std::string read_all(int descriptor) {
    std::string text;
    std::array<char, 4096> block;
    for (ssize_t got = 0; (got = ::read(descriptor, block.data(), block.size())) > 0;) {
      text.append(block.data(), static_cast<std::size_t>(got));
    }
    return text;
  }

  ProgramJob job_;
  const Watchdog watchdog_{"a program with an unusual standard error"};
  pid_t process_ = -1;
};

// A terminal of so many columns, as a person has it.
class Terminal {
 public:
  explicit Terminal(unsigned short columns) : master_(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    EXPECT_EQ(0, ::grantpt(master_));
    EXPECT_EQ(0, ::unlockpt(master_));
    own_ = ::open(::ptsname(master_), O_RDWR | O_NOCTTY | O_CLOEXEC);
    const winsize size{30, columns, 0, 0};
    EXPECT_EQ(0, ::ioctl(own_, TIOCSWINSZ, &size));
  }
  ~Terminal() {
    close_own();
    ::close(master_);
  }
  int own() const { return own_; }
  int master() const { return master_; }
  void close_own() {
    if (own_ >= 0) ::close(own_);
    own_ = -1;
  }

 private:
  int master_;
  int own_ = -1;
};

// What a terminal shows in the end, a line each, and the longest that a line ever was.
struct Shown {
  std::vector<std::string> lines{""};
  std::size_t widest = 0;
  std::size_t drawings = 0;  // of a bar
};

Shown play(const std::string& bytes) {
  Shown shown;
  std::size_t x = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string& line = shown.lines.back();
    if (bytes.compare(i, 3, "\x1b[K") == 0) {
      line.resize(std::min(x, line.size()));
      i += 2;
    } else if (bytes[i] == '\r') {
      shown.drawings += x > 0 && line.starts_with('[') ? 1 : 0;
      x = 0;
    } else if (bytes[i] == '\n') {
      shown.lines.emplace_back();
    } else {
      if (line.size() <= x) line.resize(x + 1, ' ');
      line[x++] = bytes[i];
      if (line.starts_with('[')) shown.widest = std::max(shown.widest, line.size());
    }
  }
  return shown;
}

TEST_F(LiveOutput, OnATerminalIsABarThatFitsAndMessagesAboveIt) {
  for (const unsigned short columns : {60, 130}) {
    SCOPED_TRACE(columns);
    const std::string run = "terminal-" + std::to_string(columns);
    Terminal terminal(columns);
    start_alone(run, {}, terminal.own(), terminal.own());
    terminal.close_own();
    const Shown shown = play(read_all(terminal.master()));
    EXPECT_EQ(wait(), 0);
    expect_whole(run);
    EXPECT_GE(shown.drawings, 1u);
    EXPECT_GT(shown.widest, columns / 2u);
    EXPECT_LT(shown.widest, columns);
    // In the end there are messages and nothing else: no bar, no rest of one.
    ASSERT_GE(shown.lines.size(), 10u);
    for (std::size_t i = 0; i + 1 < shown.lines.size(); ++i) {
      EXPECT_TRUE(shown.lines[i].starts_with("strake: ")) << '"' << shown.lines[i] << '"';
    }
    EXPECT_EQ(shown.lines.back(), "");
  }
}

TEST_F(LiveOutput, OnADumbTerminalIsLines) {
  Terminal terminal(80);
  start_alone("run", {}, terminal.own(), terminal.own(), {"NO_COLOR=1"});
  terminal.close_own();
  const std::string text = read_all(terminal.master());
  EXPECT_EQ(wait(), 0);
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << text;
  EXPECT_NE(text.find(" step 10/14 loss "), std::string::npos) << text;
}

TEST_F(LiveOutput, ThroughMpirunTheBarMayBeForced) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(0, ::pipe2(pipe.data(), O_CLOEXEC));
  std::vector<std::string> words = words_of(STRAKE_MPIRUN);
  words.insert(words.end(), {"-n", "2", STRAKE_PROGRAM});
  const std::vector<std::string> arguments = job_.arguments("run", {"log.format=bar"});
  words.insert(words.end(), arguments.begin(), arguments.end());
  start(words, pipe[1], pipe[1], {"COLUMNS=70"});
  ::close(pipe[1]);
  const Shown shown = play(read_all(pipe[0]));
  ::close(pipe[0]);
  EXPECT_EQ(wait(), 0);
  expect_whole("run");
  EXPECT_GE(shown.drawings, 1u);
  EXPECT_EQ(shown.widest, 69u);
}

TEST_F(LiveOutput, AsJsonIsAnObjectALine) {
  const ProgramEnd end = job_.train(0, "run", {"log.format=json", "log.every=5"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  std::map<std::string, int> events;
  std::istringstream text(end.output);
  for (std::string line; std::getline(text, line);) ++events[nlohmann::json::parse(line).at("event")];
  events.erase("message");  // why it computes on the CPU, where that is a choice
  const std::map<std::string, int> expected{{"start", 1}, {"step", 3}, {"eval", 3}, {"checkpoint", 5}, {"end", 1}};
  EXPECT_EQ(events, expected) << end.output;
}

// The memory that a plan says, on any device.
TEST_F(LiveOutput, TheStartSaysTheMemoryThatWasPlanned) {
  const ProgramEnd end = job_.train(0, "run", {"log.format=json", "train.stop_at=1", "run.device=cpu"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const auto start = nlohmann::json::parse(end.output.substr(0, end.output.find('\n')));
  ASSERT_EQ(start.at("event"), "start");
  const ProgramEnd said =
      StrakeProgram::run(0, {"plan", job_.config_path().string(), "run.device=cpu", "--json"}, job_.folder());
  ASSERT_EQ(said.exit_code, 0) << said.output;
  const auto memory = nlohmann::json::parse(said.output).at("memory");
  EXPECT_GT(start.at("device_bytes"), 0);
  EXPECT_EQ(start.at("device_bytes"), memory.at("device_bytes"));
  EXPECT_EQ(start.at("host_bytes"), memory.at("host_bytes"));
}

// What an earlier attempt did behind the checkpoint that this one starts from is done again, and does not count.
TEST_F(LiveOutput, TheBestHeldOutLossIsThatOfAllAttempts) {
  ASSERT_EQ(job_.train(0, "run", {"train.stop_at=6"}).exit_code, 0);
  {
    PosixFiles files;
    launch::MetricsFile metrics(files, launch::metrics_path(job_.run_folder("run")));
    metrics.append(launch::EvalMetrics{.step = 5, .attempt = 1, .val_loss = 0.25, .tokens = 1});
    metrics.append(launch::EvalMetrics{.step = 7, .attempt = 1, .val_loss = 0.125, .tokens = 1});
  }
  const ProgramEnd end = job_.train(0, "run", {"log.format=json"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const std::size_t last = end.output.rfind('\n', end.output.size() - 2) + 1;
  const auto json = nlohmann::json::parse(end.output.substr(last));
  EXPECT_EQ(json.at("event"), "end");
  EXPECT_EQ(json.at("first_step"), 6);
  EXPECT_EQ(json.at("best_held_out"), (nlohmann::json{{"step", 5}, {"loss", 0.25}}));
  EXPECT_EQ(json.at("held_out").at("step"), ProgramJob::kSteps);
}

TEST_F(LiveOutput, ThatNobodyReadsDoesNotStopTheRun) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(0, ::pipe2(pipe.data(), O_CLOEXEC));
  ASSERT_EQ(4096, ::fcntl(pipe[1], F_SETPIPE_SZ, 4096));
  const std::string full(4096, 'x');
  ASSERT_EQ(4096, ::write(pipe[1], full.data(), full.size()));
  start_alone("run", {"log.every=1"}, pipe[1], pipe[1]);
  EXPECT_EQ(wait(), 0);
  expect_whole("run");
  ::close(pipe[1]);
  EXPECT_TRUE(read_all(pipe[0]) == full);
  ::close(pipe[0]);
}

TEST_F(LiveOutput, WhoseReaderHasLeftDoesNotStopTheRun) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(0, ::pipe2(pipe.data(), O_CLOEXEC));
  start_alone("run", {"log.every=1"}, pipe[1], pipe[1]);
  ::close(pipe[1]);
  char first;
  EXPECT_EQ(1, ::read(pipe[0], &first, 1));
  ::close(pipe[0]);
  EXPECT_EQ(wait(), 0);
  expect_whole("run");
  // Nor does it change how an error ends.
  ASSERT_EQ(0, ::pipe2(pipe.data(), O_CLOEXEC));
  ::close(pipe[0]);
  start_alone("run", {"model.channels=17"}, pipe[1], pipe[1]);
  ::close(pipe[1]);
  EXPECT_EQ(wait(), static_cast<int>(ExitCode::kConfig));
}

TEST_F(LiveOutput, ToAFullDiskDoesNotStopTheRun) {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  start_alone("run", {}, full, full);
  EXPECT_EQ(wait(), 0);
  expect_whole("run");
  ::close(full);
}

// A file of the run would get the lowest free numbers, and then all that is said.
TEST_F(LiveOutput, ThatIsClosedGoesIntoNoFile) {
  start_alone("run", {}, kClosed, kClosed);
  EXPECT_EQ(wait(), 0);
  expect_whole("run");
  PosixFiles files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(job_.run_folder("run"))) {
    if (!entry.is_regular_file()) continue;
    EXPECT_EQ(read_file(files, entry.path(), 1 << 24).find("strake: "), std::string::npos) << entry.path();
  }
}

}  // namespace
}  // namespace strake::test
