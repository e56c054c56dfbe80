#include "runtime/base/line_output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>

#include "tests/support/watchdog.h"

namespace strake {
namespace {

std::string gap(std::int64_t lines) { return fmt::format("{} missing\n", lines); }

// A pipe that holds one page.
class SmallPipe {
 public:
  SmallPipe() {
    EXPECT_EQ(0, ::pipe2(ends_.data(), O_CLOEXEC));
    EXPECT_EQ(4096, ::fcntl(ends_[1], F_SETPIPE_SZ, 4096));
  }
  ~SmallPipe() {
    hang_up();
    ::close(ends_[1]);
  }
  int writer() const { return ends_[1]; }
  // What is in it now.
  std::string drain() {
    std::string out(1 << 16, '\0');
    ::fcntl(ends_[0], F_SETFL, O_NONBLOCK);
    const ssize_t got = ::read(ends_[0], out.data(), out.size());
    out.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return out;
  }
  void hang_up() {
    if (ends_[0] >= 0) ::close(ends_[0]);
    ends_[0] = -1;
  }

 private:
  std::array<int, 2> ends_{};
};

TEST(LineOutput, DropsWhatABlockedPipeDoesNotTakeAndSaysHowMuch) {
  const test::Watchdog watchdog("writes to a pipe that nobody reads");
  SmallPipe pipe;
  LineOutput output(pipe.writer(), gap);
  const std::string line(99, 'x');
  for (int i = 0; i < 100; ++i) output.write(line + '\n');
  std::string all;
  for (int i = 0; i < 40; ++i) all += line + '\n';
  EXPECT_EQ(output.dropped_lines(), 60);
  EXPECT_TRUE(pipe.drain() == all);
  output.write("next\n");
  output.write("last\n");
  EXPECT_EQ(pipe.drain(), "60 missing\nnext\nlast\n");
  EXPECT_EQ(output.dropped_lines(), 60);
}

// Other processes write there too, and expect to wait.
TEST(LineOutput, LeavesTheDescriptorBlocking) {
  SmallPipe pipe;
  LineOutput output(pipe.writer(), gap);
  EXPECT_EQ(::fcntl(pipe.writer(), F_GETFL) & O_NONBLOCK, 0);
  output.write("a line\n");
  EXPECT_EQ(::fcntl(pipe.writer(), F_GETFL) & O_NONBLOCK, 0);
}

TEST(LineOutput, ATextLongerThanAPipeTakesIsCutBetweenLines) {
  SmallPipe pipe;
  LineOutput output(pipe.writer(), gap);
  const std::string line = std::string(999, 'x') + '\n';
  output.write(line + line + line + line + line + line);
  EXPECT_TRUE(pipe.drain() == line + line + line + line);
  output.write("next\n");
  EXPECT_EQ(pipe.drain(), "2 missing\nnext\n");
}

TEST(LineOutput, OutlivesItsReader) {  // SIGPIPE would end this program
  SmallPipe pipe;
  LineOutput output(pipe.writer(), gap);
  pipe.hang_up();
  output.write("a line\n");
  EXPECT_EQ(output.dropped_lines(), 1);
  EXPECT_FALSE(write_lines(pipe.writer(), "a line\n"));
}

TEST(LineOutput, AFullDiskAndAClosedDescriptorDropLines) {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  LineOutput to_full(full, gap);
  to_full.write("a line\nand another\n");
  EXPECT_EQ(to_full.dropped_lines(), 2);
  ::close(full);
  LineOutput to_nothing(full, gap);
  to_nothing.write("a line\n");
  EXPECT_EQ(to_nothing.dropped_lines(), 1);
}

TEST(LineOutput, AStoppedTerminalDropsLinesAndMendsTheTornOne) {
  const test::Watchdog watchdog("writes to a terminal that nobody reads");
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_GE(master, 0);
  ASSERT_EQ(0, ::grantpt(master));
  ASSERT_EQ(0, ::unlockpt(master));
  const int terminal = ::open(::ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_GE(terminal, 0);
  termios raw{};
  ::tcgetattr(terminal, &raw);
  ::cfmakeraw(&raw);
  ::tcsetattr(terminal, TCSANOW, &raw);

  LineOutput output(terminal, gap);
  const std::string line = std::string(99, 'x') + '\n';
  std::int64_t written = 0;
  for (; output.dropped_lines() < 10; ++written) output.write(line);
  ::fcntl(master, F_SETFL, O_NONBLOCK);
  const auto drain = [&] {
    std::string text;
    std::array<char, 4096> block;
    for (ssize_t got = 0; (got = ::read(master, block.data(), block.size())) > 0;)
      text.append(block.data(), static_cast<std::size_t>(got));
    return text;
  };
  const std::string first = drain();
  output.write("next\n");
  const std::string second = drain();
  // Whole lines, but for the last; the gap begins a line of its own.
  const std::string text = first + second;
  const std::size_t at = text.find("10 missing\nnext\n");
  ASSERT_NE(at, std::string::npos) << text.substr(text.size() - std::min<std::size_t>(text.size(), 300));
  EXPECT_EQ(text[at - 1], '\n');
  EXPECT_GE(static_cast<std::int64_t>(at), (written - 10) * 100);
  ::close(terminal);
  ::close(master);
}

}  // namespace
}  // namespace strake
