// The machine loses power: of what was not synced, any part is gone.
#include <map>

#include "tests/checkpoint/synthetic_run.h"
#include "tests/faults/life_chain.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"

namespace strake::test {
namespace {

constexpr const char* kFolder = "/run/ckpt";
constexpr int kLosses = 3;

// Leads the life of `board` with ranks as threads.
void live_on(FaultyFiles& faulty, Board& board) {
  run_ranks(board.plan.ranks, [&](int rank, comm::Control& control) {
    const int code = live(board, rank, control, faulty);
    if (code != 0 && code != 16) board.say(false, fmt::format("rank {} ended with {}", rank, code));
  });
}

struct Calls {
  std::int64_t changing, syncs;
};

// One rank that saves twice and keeps one, from an empty disk. The plan of the exhaustive classes.
LifePlan plan_of_two_saves(LifeChain& chain, checkpoint::StrategyKind strategy) {
  LifePlan plan = chain.next_plan(1);
  plan.strategy = strategy;
  plan.saves = 2;
  plan.interval = 10;
  return plan;
}

void prepare(LifeChain& chain) {
  chain.base().keep = 1;
  chain.base().chunk_bytes = 4096;
  chain.base().state_seed = 7;
}

// What such a life calls when nothing happens.
Calls calls_of(checkpoint::StrategyKind strategy) {
  static std::map<checkpoint::StrategyKind, Calls> known;
  const auto found = known.find(strategy);
  if (found != known.end()) return found->second;
  const Report nobody = [](const Trial&) {};
  LifeChain chain("", 1, kFolder, nobody);
  prepare(chain);
  MemoryFiles memory;
  FaultyFiles faulty(memory);
  Board board;
  board.plan = plan_of_two_saves(chain, strategy);
  live_on(faulty, board);
  return known[strategy] = {faulty.changing_calls(), faulty.syncs()};
}

// A life that dies on entering changing call `crash`, sync `ignored` of which was a lie, and the start behind it.
void lose_power_once(LifeChain& chain, checkpoint::StrategyKind strategy, std::int64_t crash, std::int64_t ignored,
                     std::uint64_t subset) {
  MemoryFiles memory;
  {
    FaultyFiles faulty(memory);
    faulty.crash_at(crash);
    faulty.ignore_sync(ignored);
    Board board;
    board.plan = plan_of_two_saves(chain, strategy);
    live_on(faulty, board);
    chain.ended(board, true, {{"call", crash}, {"subset", subset}});
  }
  std::mt19937_64 random(subset);
  memory.power_loss(random);
  FaultyFiles healthy(memory);
  Board board;
  board.plan = chain.looking_plan(1);
  live_on(healthy, board);
  chain.ended(board, false);
  chain.expect_nothing_open();
}

}  // namespace

void lose_power(std::uint64_t seed, const TrialOptions&, const Report& report) {
  LifeChain chain("power", seed, kFolder, report);
  MemoryFiles memory;
  for (int life = 0; life <= kLosses; ++life) {
    const bool last = life == kLosses;
    FaultyFiles faulty(memory);
    Board board;
    board.plan = last ? chain.looking_plan(3) : chain.next_plan(3);
    // Changing calls of all ranks together: a save has some forty, and the start a few.
    const auto call =
        static_cast<std::int64_t>(1 + chain.below(static_cast<std::uint64_t>(board.plan.saves) * 50 + 10));
    if (!last) faulty.crash_at(call);
    live_on(faulty, board);
    chain.ended(board, !last, {{"call", call}});
    memory.power_loss(chain.random());
  }
  chain.expect_nothing_open();
}

void lose_power_at_a_call(std::uint64_t seed, const TrialOptions&, const Report& report) {
  LifeChain chain("power_call", seed, kFolder, report);
  prepare(chain);
  const auto strategy = static_cast<checkpoint::StrategyKind>(seed % 4);
  const std::int64_t calls = calls_of(strategy).changing + 1;
  lose_power_once(chain, strategy, 1 + static_cast<std::int64_t>(seed / 4) % calls, 0, chain.random()());
}

// The classes above are worth something: with any one sync turned into a lie they find damage.
void lose_power_without_a_sync(std::uint64_t seed, const TrialOptions&, const Report& report) {
  const auto strategy = static_cast<checkpoint::StrategyKind>(seed % 4);
  const auto [calls, syncs] = calls_of(strategy);
  const std::int64_t ignored = 1 + static_cast<std::int64_t>(seed / 4) % syncs;
  Trial verdict{.kind = "no_sync", .seed = seed, .wrong = "nobody has noticed"};
  std::int64_t tried = 0;
  for (std::uint64_t subset = 0; subset < 200 && !verdict.wrong.empty(); ++subset) {
    for (std::int64_t crash = 1; crash <= calls + 1 && !verdict.wrong.empty(); ++crash) {
      ++tried;
      const Report judge = [&](const Trial& trial) {
        if (trial.wrong.empty()) return;
        verdict.wrong.clear();
        verdict.facts["noticed"] = trial.wrong;
      };
      LifeChain chain("no_sync", seed, kFolder, judge);
      prepare(chain);
      lose_power_once(chain, strategy, crash, ignored, subset);
    }
  }
  verdict.facts["strategy"] = checkpoint::name_of(strategy);
  verdict.facts["sync"] = ignored;
  verdict.facts["syncs"] = syncs;
  verdict.facts["tried"] = tried;
  report(verdict);
}

}  // namespace strake::test
