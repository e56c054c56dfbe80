// How a process learns its rank, is asked to stop, and says why it ends.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "launch/job/exit_report.h"
#include "launch/job/rank_environment.h"
#include "launch/job/signals.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

class RankEnvironmentTest : public ::testing::Test {
 protected:
  RankEnvironmentTest() {
    for (const char* name : kNames) {
      const char* value = std::getenv(name);
      saved_.emplace_back(name, value == nullptr ? "" : value);
      ::unsetenv(name);
    }
  }
  ~RankEnvironmentTest() override {
    for (const auto& [name, value] : saved_) {
      value.empty() ? ::unsetenv(name.c_str()) : ::setenv(name.c_str(), value.c_str(), 1);
    }
  }
  void set(const char* name, const char* value) { ::setenv(name, value, 1); }

 private:
  static constexpr const char* kNames[] = {"OMPI_COMM_WORLD_RANK",
                                           "OMPI_COMM_WORLD_SIZE",
                                           "OMPI_COMM_WORLD_LOCAL_RANK",
                                           "OMPI_COMM_WORLD_LOCAL_SIZE",
                                           "PMIX_RANK",
                                           "PMI_RANK",
                                           "PMI_SIZE",
                                           "SLURM_NTASKS",
                                           "SLURM_STEP_ID",
                                           "SLURM_STEPID",
                                           "SLURM_PROCID",
                                           "SLURM_STEP_NUM_TASKS",
                                           "SLURM_LOCALID",
                                           "SLURM_NTASKS_PER_NODE"};
  std::vector<std::pair<std::string, std::string>> saved_;
};

TEST_F(RankEnvironmentTest, PlainIsOneRank) {
  const RankEnvironment rank = RankEnvironment::detect();
  EXPECT_FALSE(rank.under_launcher());
  EXPECT_EQ(rank.rank, 0);
  EXPECT_EQ(rank.ranks, 1);
  EXPECT_EQ(rank.launcher_name(), "plain");
}

TEST(ShareOfCores, IsWhatARankMayRunOnAndNoMoreThanItsPart) {
  EXPECT_EQ(share_of_cores(1, 16, 16), 16);
  EXPECT_EQ(share_of_cores(4, 16, 16), 4);  // bound to nothing
  EXPECT_EQ(share_of_cores(4, 1, 16), 1);   // a core each
  EXPECT_EQ(share_of_cores(8, 32, 64), 8);  // four share a socket
  EXPECT_EQ(share_of_cores(1, 4, 64), 4);   // in a container of four cores
  EXPECT_EQ(share_of_cores(3, 16, 16), 5);
  EXPECT_EQ(share_of_cores(32, 16, 16), 1);
  EXPECT_EQ(share_of_cores(0, 0, 0), 1);  // nothing is known
  EXPECT_GE(usable_cores({}), 1);
}

TEST_F(RankEnvironmentTest, MpirunTellsRankAndLocalRank) {
  set("OMPI_COMM_WORLD_RANK", "5");
  set("OMPI_COMM_WORLD_SIZE", "8");
  set("OMPI_COMM_WORLD_LOCAL_RANK", "1");
  set("OMPI_COMM_WORLD_LOCAL_SIZE", "4");
  const RankEnvironment rank = RankEnvironment::detect();
  EXPECT_EQ(rank.launcher_name(), "mpirun");
  EXPECT_EQ(rank.rank, 5);
  EXPECT_EQ(rank.ranks, 8);
  EXPECT_EQ(rank.local_rank, 1);
  EXPECT_EQ(rank.local_ranks, 4);
}

TEST_F(RankEnvironmentTest, SrunTellsItToo) {
  set("PMIX_RANK", "2");
  set("SLURM_PROCID", "2");
  set("SLURM_STEP_NUM_TASKS", "3");
  set("SLURM_LOCALID", "1");
  const RankEnvironment rank = RankEnvironment::detect();
  EXPECT_EQ(rank.launcher_name(), "srun");
  EXPECT_EQ(rank.rank, 2);
  EXPECT_EQ(rank.ranks, 3);
  EXPECT_EQ(rank.local_rank, 1);
}

TEST_F(RankEnvironmentTest, ABatchScriptsShellIsPlain) {
  set("SLURM_PROCID", "0");
  EXPECT_FALSE(RankEnvironment::detect().under_launcher());
}

TEST_F(RankEnvironmentTest, NonsenseIsAbsent) {
  set("OMPI_COMM_WORLD_RANK", "4");
  for (const char* size : {"", "x", "4", "-1", "3 "}) {
    set("OMPI_COMM_WORLD_SIZE", size);
    EXPECT_FALSE(RankEnvironment::detect().under_launcher()) << '"' << size << '"';
  }
}

// N ranks that MPI has not brought together would be N runs in one folder.
TEST_F(RankEnvironmentTest, SrunWithoutPmixIsNoticed) {
  set("SLURM_NTASKS", "4");
  set("SLURM_PROCID", "2");
  set("SLURM_STEP_ID", "0");
  set("SLURM_STEP_NUM_TASKS", "4");
  const std::string said = missing_ranks(1);
  EXPECT_NE(said.find("srun started 4 of this program, but MPI sees 1"), std::string::npos) << said;
  EXPECT_NE(said.find("`srun --mpi=pmix -n 4 strake train"), std::string::npos) << said;
  EXPECT_NE(said.find("unset SLURM_STEP_NUM_TASKS"), std::string::npos) << said;
  EXPECT_EQ(missing_ranks(4), "");
  set("PMI_RANK", "2");  // --mpi=pmi2
  set("PMI_SIZE", "4");
  EXPECT_EQ(missing_ranks(1), said);
  ::unsetenv("SLURM_STEP_ID");
  set("SLURM_STEPID", "17");  // its older name
  EXPECT_EQ(missing_ranks(1), said);
}

TEST_F(RankEnvironmentTest, ShellsInsideAnAllocationAreOneRank) {
  set("SLURM_NTASKS", "4");  // salloc on a login node
  EXPECT_EQ(missing_ranks(1), "");
  set("SLURM_PROCID", "0");  // a batch script
  EXPECT_EQ(missing_ranks(1), "");
  set("SLURM_STEP_NUM_TASKS", "4");
  for (const char* reserved : {"4294967291", "4294967290"}) {  // the steps of a batch script, of salloc's shell
    set("SLURM_STEP_ID", reserved);
    EXPECT_EQ(missing_ranks(1), "") << reserved;
  }
  set("SLURM_STEP_ID", "3");  // srun -n 1 --pty bash
  set("SLURM_STEP_NUM_TASKS", "1");
  EXPECT_EQ(missing_ranks(1), "");
}

TEST_F(RankEnvironmentTest, AnMpirunOfAnotherMpiIsNoticed) {
  EXPECT_EQ(missing_ranks(1), "");
  set("PMIX_RANK", "0");
  EXPECT_EQ(missing_ranks(1), "");
  set("PMIX_RANK", "1");
  EXPECT_NE(missing_ranks(1).find("A PMIx launcher started 2"), std::string::npos) << missing_ranks(1);
  set("PMI_RANK", "2");
  EXPECT_NE(missing_ranks(1).find("A launcher of another MPI started 3"), std::string::npos) << missing_ranks(1);
  set("PMI_SIZE", "8");
  EXPECT_NE(missing_ranks(1).find("`mpirun --bind-to none -n 8 strake train"), std::string::npos) << missing_ranks(1);
  set("OMPI_COMM_WORLD_SIZE", "2");
  EXPECT_NE(missing_ranks(1).find("mpirun started 2 of this program, but MPI sees 1"), std::string::npos);
  EXPECT_NE(missing_ranks(1).find("use that one's mpirun"), std::string::npos) << missing_ranks(1);
}

// mpirun over several nodes of SLURM starts its daemons as a step, which may have more tasks than the job has ranks.
TEST_F(RankEnvironmentTest, MpirunsOwnNumberCounts) {
  set("SLURM_PROCID", "1");
  set("SLURM_STEP_ID", "0");
  set("SLURM_STEP_NUM_TASKS", "7");
  set("OMPI_COMM_WORLD_SIZE", "2");
  EXPECT_EQ(missing_ranks(2), "");
  EXPECT_NE(missing_ranks(1), "");
}

TEST(StopSignals, RecordTheRequest) {
  for (const int signal : {SIGUSR1, SIGINT}) {
    const StopSignals signals;
    EXPECT_EQ(signals.requested(), 0);
    ::raise(signal);
    EXPECT_EQ(signals.requested(), signal);
  }
}

TEST(StopSignals, AreSeenWhereALauncherHadThemBlocked) {
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  {
    const StopSignals signals;
    kill(getpid(), SIGUSR1);
    while (signals.requested() == 0) std::this_thread::yield();  // any thread may take it
    EXPECT_EQ(signals.requested(), SIGUSR1);
  }
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, &before, &after);
  EXPECT_TRUE(sigismember(&after, SIGUSR1));
}

TEST(StopSignals, RestoreWhatWasThere) {
  struct sigaction before {
  }, after{};
  ::sigaction(SIGINT, nullptr, &before);
  { const StopSignals signals; }
  ::sigaction(SIGINT, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

TEST(StopSignals, HangupIsARequestUnlessItWasIgnored) {
  ::signal(SIGHUP, SIG_DFL);  // whoever started the tests
  {
    const StopSignals signals;
    ::raise(SIGHUP);
    EXPECT_EQ(signals.requested(), SIGHUP);
  }
  ::signal(SIGHUP, SIG_IGN);  // as nohup does
  {
    const StopSignals signals;
    ::raise(SIGHUP);
    EXPECT_EQ(signals.requested(), 0);
  }
  ::signal(SIGHUP, SIG_DFL);
}

// A process that has nothing left but to end must not be ended by what comes too late.
TEST(StopSignals, AreIgnoredAfterwardsIfAskedSo) {
  EXPECT_EXIT(
      {
        { const StopSignals signals(StopSignals::After::kIgnore); }
        for (const int signal : {SIGUSR1, SIGINT, SIGHUP, SIGTERM}) ::raise(signal);
        ::_exit(7);
      },
      ::testing::ExitedWithCode(7), "");
}

TEST(StopSignals, ASecondInterruptEndsTheProcessAtOnce) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        ::raise(SIGINT);
        ::raise(SIGUSR1);
        ::raise(SIGINT);
      },
      ::testing::ExitedWithCode(130), "");
}

TEST(StopSignals, SigtermIsNotedApart) {
  StopSignals signals;
  ::raise(SIGTERM);
  EXPECT_TRUE(signals.terminated());
  EXPECT_EQ(signals.requested(), 0);
  signals.request(SIGTERM);
  signals.request(SIGUSR1);  // the first counts
  EXPECT_EQ(signals.requested(), SIGTERM);
}

TEST(StopSignals, RepeatedRequestsToStopDoNotEndIt) {
  const StopSignals signals;
  ::raise(SIGUSR1);
  ::raise(SIGUSR1);
  EXPECT_EQ(signals.requested(), SIGUSR1);
}

std::pair<int, std::string> report(const std::exception& error, int rank, int ranks) {
  ::testing::internal::CaptureStderr();
  const int code = report_error(error, rank, ranks);
  return {code, ::testing::internal::GetCapturedStderr()};
}

TEST(ExitReport, NamesTheRankAndGivesTheDocumentedCode) {
  using Report = std::pair<int, std::string>;
  EXPECT_EQ(report(ConfigError("a\nb"), 1, 2), Report(10, "strake: error: rank 1: a\nstrake: error: rank 1: b\n"));
  EXPECT_EQ(report(DataError("t.bin: cut"), 0, 1), Report(11, "strake: error: t.bin: cut\n"));
  EXPECT_EQ(report(NoCheckpointError("x"), 0, 1).first, 12);
  EXPECT_EQ(report(CorruptError("x", "f", 0), 0, 1).first, 12);
  EXPECT_EQ(report(IncompatibleCheckpointError("x"), 0, 1).first, 13);
  EXPECT_EQ(report(NonFiniteError("x"), 0, 1).first, 14);
  EXPECT_EQ(report(DeviceError("x"), 0, 1).first, 16);
  EXPECT_EQ(report(CommError("x", 1), 0, 1).first, 16);
  EXPECT_EQ(report(IoError("x", "f", 28), 0, 1).first, 17);
  EXPECT_EQ(report(std::runtime_error("odd"), 0, 1), Report(1, "strake: error: odd\n"));
}

// Numbers and whether people are told what they mean: the enumerators of ExitCode against the rows of README.md's
// table.
TEST(ExitCodes, TheTableInTheReadmeListsThoseThatExistAndNoOther) {
  const auto numbers = [](const char* path, const std::string& begin, const std::string& end, const std::regex& line) {
    std::ifstream file(path);
    std::set<int> found;
    bool inside = false;
    for (std::string text; std::getline(file, text);) {
      if (text.starts_with(begin)) inside = true;
      if (inside && text.starts_with(end)) return found;
      std::smatch match;
      if (inside && std::regex_search(text, match, line)) {
        EXPECT_TRUE(found.insert(std::stoi(match[1])).second) << path << ": twice: " << text;
      }
    }
    ADD_FAILURE() << path << ": no section from '" << begin << "' to '" << end << "'";
    return found;
  };
  const std::set<int> exist = numbers(STRAKE_SOURCE_FOLDER "/runtime/base/error.h", "enum class ExitCode", "};",
                                      std::regex("^ +k[A-Za-z]+ = ([0-9]+),"));
  const std::set<int> told = numbers(STRAKE_SOURCE_FOLDER "/README.md", "## Exit codes", "Any other code",
                                     std::regex("^\\| ([0-9]+) \\| [^|]+ \\| [^|]*\\|$"));
  EXPECT_EQ(exist, told);
  EXPECT_TRUE(exist.contains(0) && exist.contains(10) && exist.size() > 5) << "the tables were not read";
}

TEST(ExitCodesDeathTest, AMistakeOfTheProgramIsOne) {
  EXPECT_EXIT(STRAKE_CHECK(1 + 1 == 3, "sums"), ::testing::ExitedWithCode(1), "internal error: check failed: .*sums");
  EXPECT_EXIT(
      {
        std::set_terminate(end_uncaught);
        std::thread([] { throw std::runtime_error("lost its way"); }).join();
      },
      ::testing::ExitedWithCode(1), "strake: internal error: not caught: lost its way\n");
}

}  // namespace
}  // namespace strake::launch
