#include "runtime/base/home_path.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

namespace strake {
namespace {

class HomePath : public testing::Test {
 protected:
  void SetUp() override {
    if (const char* home = std::getenv("HOME")) before_ = home;
    ::setenv("HOME", "/home/ada", 1);
  }
  void TearDown() override { before_ ? ::setenv("HOME", before_->c_str(), 1) : ::unsetenv("HOME"); }

 private:
  std::optional<std::string> before_;
};

TEST_F(HomePath, ExpandsTheTildeThatStandsAlone) {
  EXPECT_EQ(expand_home("~"), "/home/ada");
  EXPECT_EQ(expand_home("~/"), "/home/ada/");
  EXPECT_EQ(expand_home("~/data/train *.bin"), "/home/ada/data/train *.bin");
}

TEST_F(HomePath, LeavesAllElse) {
  for (const std::string path : {"", "a", "/a", "./~", "a/~/b", "~ada", "~ada/b", "~~", "-", " ~/a"}) {
    EXPECT_EQ(expand_home(path), path);
  }
}

TEST_F(HomePath, HomeMayEndInASlash) {
  ::setenv("HOME", "/home/ada//", 1);
  EXPECT_EQ(expand_home("~/a"), "/home/ada/a");
  ::setenv("HOME", "/", 1);
  EXPECT_EQ(expand_home("~/a"), "/a");
  EXPECT_EQ(expand_home("~"), "/");
}

// As under a batch system that starts with an empty environment.
TEST_F(HomePath, WithoutHomeTheSystemSaysIt) {
  for (const bool empty : {false, true}) {
    empty ? ::setenv("HOME", "", 1) : ::unsetenv("HOME");
    const std::string path = expand_home("~/a");
    EXPECT_TRUE(path == "~/a" || (path.front() == '/' && path.ends_with("/a"))) << path;
  }
}

}  // namespace
}  // namespace strake
