// Ranks, whole jobs and mpirun are killed with SIGKILL, at random moments and at each place of the protocol.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "comm/mpi/mpi_world.h"
#include "runtime/base/check.h"
#include "tests/faults/life_chain.h"
#include "tests/faults/process_ranks.h"
#include "tests/support/faulty_files.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {
namespace {

using std::chrono::microseconds;

constexpr int kLives = 4;  // of a seed that are killed

// The newest time that a save took from its call until it was durable, from which the next moment is drawn.
std::int64_t usual_save_us = 2000;

void sleep_us(std::uint64_t us) { std::this_thread::sleep_for(microseconds(us)); }

// Returns at a random moment: one in eight times of the start, otherwise of some save. `ended` tells whether it came.
template <typename Ended>
void wait_for_a_moment(LifeChain& chain, const Board& board, std::uint64_t start_us, Ended ended) {
  if (chain.below(8) == 0) return sleep_us(chain.below(start_us));
  const auto save = static_cast<std::int64_t>(chain.below(static_cast<std::uint64_t>(board.plan.saves)));
  // `begun` counts from what was loaded.
  while (board.loaded == -2 || board.begun < std::max<std::int64_t>(board.loaded, 0) + save * board.plan.interval + 1) {
    if (ended()) return;
    sleep_us(50);
  }
  sleep_us(chain.below(static_cast<std::uint64_t>(usual_save_us) * 3 / 2));
}

void note_time_of_saves(const Board& board) {
  if (board.save_us > 0) usual_save_us = std::clamp<std::int64_t>(board.save_us, 200, 20'000);
}

std::string name_at(const Board& board, int rank) { return place_name(board.at[static_cast<std::size_t>(rank)]); }

void look(LifeChain& chain) {
  const SharedBoard board;
  board->plan = chain.looking_plan();
  PosixFiles files;
  ProcessRanks ranks(board->plan.ranks,
                     [&](int rank, comm::Control& control) { return live(*board, rank, control, files); });
  for (const ProcessEnd& end : ranks.wait()) {
    if (end.signal != 0 || end.code != 0)
      board->say(false, fmt::format("the last start ended with {}, signal {}", end.code, end.signal));
  }
  chain.ended(*board, false);
  chain.expect_nothing_open();
}

// Every rank that was not killed has ended by itself, because a peer was lost or because all was done.
void judge_ends(Board& board, const std::vector<ProcessEnd>& ends) {
  for (std::size_t rank = 0; rank < ends.size(); ++rank) {
    const ProcessEnd& end = ends[rank];
    if (end.signal == SIGKILL || (end.signal == 0 && (end.code == 0 || end.code == 16))) continue;
    board.say(false, fmt::format("rank {} ended with {}, signal {}", rank, end.code, end.signal));
  }
}

}  // namespace

void kill_a_rank(std::uint64_t seed, const TrialOptions&, const Report& report) {
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  LifeChain chain("kill", seed, scratch.path() / "ckpt", report);
  for (int life = 0; life < kLives; ++life) {
    const SharedBoard board;
    board->plan = chain.next_plan();
    const int victim = static_cast<int>(chain.below(static_cast<std::uint64_t>(board->plan.ranks)));
    PosixFiles files;
    ProcessRanks ranks(board->plan.ranks,
                       [&](int rank, comm::Control& control) { return live(*board, rank, control, files); });
    wait_for_a_moment(chain, *board, 4000, [&] { return ranks.ended(); });
    const bool happened = !ranks.ended();
    ranks.kill(victim);
    const std::string at = name_at(*board, victim);
    // A launcher ends the others sooner or later; or they notice by themselves.
    const bool by_themselves = chain.below(2) == 0;
    if (!by_themselves) {
      sleep_us(chain.below(3000));
      ranks.kill_all();
    }
    judge_ends(*board, ranks.wait());
    note_time_of_saves(*board);
    chain.ended(*board, happened, {{"victim", victim}, {"at", at}, {"others", by_themselves ? "noticed" : "killed"}});
  }
  look(chain);
}

void kill_at_a_failpoint(std::uint64_t seed, const TrialOptions&, const Report& report) {
  // Every place by every strategy, in the first, second and third save that passes it. The first ones every rank
  // passes.
  static constexpr std::array kPlaces = {
      "ckpt.snap.begin", "ckpt.snap.mid",     "ckpt.snap.end",         "ckpt.write.0",         "ckpt.write.1",
      "ckpt.write.2",    "ckpt.fsync.before", "ckpt.fsync.after",      "ckpt.report",          "ckpt.vote",
      "ckpt.preflight",  "ckpt.cover",        "ckpt.manifest.renamed", "ckpt.manifest.synced", "ckpt.rename",
      "ckpt.durable",    "ckpt.latest",       "ckpt.prune.before",     "ckpt.prune.mid"};
  constexpr std::size_t kOfEveryRank = 10;
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  LifeChain chain("failpoint", seed, scratch.path() / "ckpt", report);
  chain.base().keep = 1 + static_cast<int>(chain.below(2));
  chain.base().chunk_bytes = 1024;
  const std::size_t place = seed / 4 % kPlaces.size();
  const SharedBoard board;
  LifePlan plan = chain.next_plan();
  plan.strategy = static_cast<checkpoint::StrategyKind>(seed % 4);
  plan.saves = 6;
  plan.killed_place = place_number(kPlaces[place]);
  plan.killed_time = 1 + static_cast<std::int64_t>(seed / 4 / kPlaces.size() % 3);
  plan.killed_rank = place < kOfEveryRank ? static_cast<int>(chain.below(static_cast<std::uint64_t>(plan.ranks))) : 0;
  board->plan = plan;
  PosixFiles files;
  ProcessRanks ranks(plan.ranks, [&](int rank, comm::Control& control) { return live(*board, rank, control, files); });
  const std::vector<ProcessEnd>& ends = ranks.wait();
  judge_ends(*board, ends);
  const bool happened = ends[static_cast<std::size_t>(plan.killed_rank)].signal == SIGKILL;
  if (!happened) board->say(false, fmt::format("{} was not passed {} times", kPlaces[place], plan.killed_time));
  chain.ended(*board, happened, {{"victim", plan.killed_rank}, {"at", kPlaces[place]}, {"time", plan.killed_time}});
  look(chain);
}

void kill_the_job(std::uint64_t seed, const TrialOptions&, const Report& report) {
  // The ranks of a launcher that dies with them are ours to wait for.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  LifeChain chain("job", seed, scratch.path() / "ckpt", report);
  for (int life = 0; life < kLives; ++life) {
    const SharedBoard board;
    board->plan = chain.next_plan();
    const pid_t launcher = ::fork();
    STRAKE_CHECK(launcher >= 0, "cannot fork");
    if (launcher == 0) {
      ::setpgid(0, 0);
      PosixFiles files;
      ProcessRanks ranks(board->plan.ranks,
                         [&](int rank, comm::Control& control) { return live(*board, rank, control, files); });
      judge_ends(*board, ranks.wait());
      ::_exit(0);
    }
    ::setpgid(launcher, launcher);  // whoever comes first
    bool happened = true;
    int status = 0;
    wait_for_a_moment(chain, *board, 4000, [&] { return !(happened = ::waitpid(launcher, &status, WNOHANG) == 0); });
    std::string at = name_at(*board, 0);
    if (happened) ::kill(-launcher, SIGKILL);
    while (::waitpid(-1, &status, 0) > 0 || errno == EINTR) {
    }
    note_time_of_saves(*board);
    chain.ended(*board, happened, {{"victim", "all"}, {"at", at}});
  }
  look(chain);
}

void kill_in_retention(std::uint64_t seed, const TrialOptions&, const Report& report) {
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  LifeChain chain("retention", seed, scratch.path() / "ckpt", report);
  chain.base().storage_may_fail = true;
  for (int life = 0; life < kLives; ++life) {
    const SharedBoard board;
    LifePlan plan = chain.next_plan();
    plan.saves = 4 + plan.keep;
    plan.killed_rank = 0;
    plan.killed_place = place_number(chain.below(2) == 0 ? "ckpt.prune.before" : "ckpt.prune.mid");
    plan.killed_time = 1 + static_cast<std::int64_t>(chain.below(3));
    board->plan = plan;
    // Besides, a newer one fails somewhere.
    const auto failing = static_cast<std::int64_t>(1 + chain.below(120));
    const int failing_rank = static_cast<int>(chain.below(static_cast<std::uint64_t>(plan.ranks)));
    const int error_number = std::array{EIO, ENOSPC, EDQUOT}[chain.below(3)];
    ProcessRanks ranks(plan.ranks, [&](int rank, comm::Control& control) {
      PosixFiles posix;
      FaultyFiles files(posix);
      return live(*board, rank, control, files, [&] {
        files.restart_count();
        if (rank == failing_rank) files.fail_at(failing, error_number);
      });
    });
    const std::vector<ProcessEnd> ends = ranks.wait();
    judge_ends(*board, ends);
    chain.ended(*board, ends.front().signal == SIGKILL,
                {{"victim", 0}, {"at", place_name(plan.killed_place)}, {"failed_saves", board->failed_saves.load()}});
  }
  look(chain);
}

void kill_under_mpirun(std::uint64_t seed, const TrialOptions& options, const Report& report) {
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  LifeChain chain("mpirun", seed, scratch.path() / "ckpt", report);
  for (int life = 0; life <= kLives; ++life) {
    const bool last = life == kLives;
    const std::filesystem::path board_file = scratch.path() / fmt::format("board-{}", life);
    const SharedBoard board(board_file);
    board->plan = last ? chain.looking_plan() : chain.next_plan();
    if (!last) board->plan.saves *= 4;
    const int ranks = board->plan.ranks;
    const pid_t launcher = ::fork();
    STRAKE_CHECK(launcher >= 0, "cannot fork");
    if (launcher == 0) {
      const int nowhere = ::open("/dev/null", O_RDWR);
      for (const int descriptor : {0, 1, 2}) ::dup2(nowhere, descriptor);
      const std::string number = std::to_string(ranks);
      // What Open MPI itself leaves behind when it is killed goes with this folder.
      ::setenv("OMPI_MCA_btl_vader_backing_directory", scratch.path().c_str(), 1);
      ::setenv("OMPI_MCA_orte_tmpdir_base", scratch.path().c_str(), 1);
      ::execlp("mpirun", "mpirun", "--bind-to", "none", "--oversubscribe", "-n", number.c_str(),
               options.program.c_str(), "--live", board_file.c_str(), nullptr);
      ::_exit(127);
    }
    bool running = true;
    int status = 0;
    const auto ended = [&] { return !(running = running && ::waitpid(launcher, &status, WNOHANG) == 0); };
    const bool all = chain.below(2) == 0;
    const int victim = static_cast<int>(chain.below(static_cast<std::uint64_t>(ranks)));
    bool happened = false;
    std::string at;
    if (!last) {
      for (int rank = 0; rank < ranks; ++rank) {
        while (board->process[static_cast<std::size_t>(rank)] == 0 && !ended()) sleep_us(200);
      }
      wait_for_a_moment(chain, *board, 4000, ended);
      happened = !ended();
      at = name_at(*board, victim);
      for (int rank = 0; rank < ranks && happened; ++rank) {
        const pid_t process = board->process[static_cast<std::size_t>(rank)];
        // mpirun has not reaped it before it has seen the rank's death, which is behind this.
        if (process != 0 && (all || rank == victim)) ::kill(process, SIGKILL);
      }
      if (happened && all) ::kill(launcher, SIGKILL);
    }
    if (running) ::waitpid(launcher, &status, 0);
    for (int rank = 0; rank < ranks; ++rank) {  // what mpirun ended, and what nobody reaps but init
      const pid_t process = board->process[static_cast<std::size_t>(rank)];
      for (int n = 0; process != 0 && n < 50'000 && std::filesystem::exists(fmt::format("/proc/{}/maps", process)) &&
                      std::filesystem::exists(fmt::format("/proc/{}/exe", process));
           ++n)
        sleep_us(200);
    }
    if (last && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
      board->say(false, fmt::format("the last start under mpirun ended with {}", WEXITSTATUS(status)));
    note_time_of_saves(*board);
    chain.ended(*board, happened, {{"victim", all ? nlohmann::json("all") : nlohmann::json(victim)}, {"at", at}});
  }
  chain.expect_nothing_open();
}

int live_under_mpirun(const std::string& board_file) {
  comm::MpiWorld world;
  const auto control = world.make_control();
  const SharedBoard board(board_file, false);
  PosixFiles files;
  const int code = live(*board, world.rank(), *control, files);
  if (code != 0) control->abort(code);
  return 0;
}

}  // namespace strake::test
