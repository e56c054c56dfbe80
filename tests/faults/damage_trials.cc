// Files of committed checkpoints are damaged: every kind is found before the state is touched, and an older one is
// taken.
#include <array>

#include "checkpoint/checkpointer.h"
#include "tests/checkpoint/damages.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/faults/life_chain.h"
#include "tests/support/memory_files.h"

namespace strake::test {
namespace {

const std::filesystem::path kRun = "/run/ckpt", kOtherRun = "/other/ckpt";

// Leads one life on healthy files with ranks as threads; its end, of rank 0.
RankEnd lead(MemoryFiles& files, Board& board) {
  int code = 0;
  const auto ends = run_ranks(board.plan.ranks, [&](int rank, comm::Control& control) {
    const int mine = live(board, rank, control, files);
    if (rank == 0) code = mine;
  });
  RankEnd end = ends.front();
  end.code = static_cast<ExitCode>(code);
  return end;
}

// A run of `ranks` that has kept some checkpoints; their steps, newest first.
std::vector<std::int64_t> save_some(MemoryFiles& files, LifePlan plan, const std::filesystem::path& folder,
                                    std::int64_t attempt) {
  std::strncpy(plan.folder, folder.c_str(), sizeof(plan.folder) - 1);
  plan.attempt = attempt;
  plan.saves = 4;
  plan.keep = 3;
  Board board;
  board.plan = plan;
  lead(files, board);
  if (board.said != 0) check_failed("a healthy run", board.what());
  return checkpoint::committed_steps(files, folder);
}

struct Look {
  std::int64_t loaded;
  std::string wrong;
  bool silent;
  ExitCode code;
};
// A start behind the damage, which must find step `expected`; -1: none, and says so.
Look look_behind(LifeChain& chain, MemoryFiles& files, std::int64_t expected) {
  Board board;
  LifePlan plan = chain.looking_plan();
  plan.may_set_aside = true;
  plan.least = expected;
  plan.most = expected;
  board.plan = plan;
  const RankEnd end = lead(files, board);
  return {board.loaded, board.what(), board.silent, end.code};
}

// Names what is wrong, or nothing.
Trial judge(Trial trial, const Look& look, std::int64_t expected, bool set_aside) {
  trial.facts["expected"] = expected;
  trial.facts["loaded"] = look.loaded;
  if (expected >= 0) {
    trial.wrong = look.wrong;
    if (trial.wrong.empty() && look.loaded != expected) trial.wrong = "another step was loaded";
    if (trial.wrong.empty() && !set_aside) trial.wrong = "it was not set aside";
  } else if (look.code != ExitCode::kNoCheckpoint) {
    trial.wrong =
        fmt::format("without a whole one the start ended with {}: {}", static_cast<int>(look.code), look.wrong);
  }
  // Damage that is taken for a checkpoint is what must never be.
  trial.silent = !trial.wrong.empty() && (look.silent || look.loaded > expected);
  return trial;
}

}  // namespace

void damage_the_newest(std::uint64_t seed, const TrialOptions&, const Report& report) {
  constexpr std::size_t kOwn = 2;  // beside those of damages.h
  const std::size_t kind = seed % (std::size(kDamages) + kOwn);
  LifeChain chain("damage", seed, kRun, report);
  MemoryFiles files;
  LifePlan plan = chain.next_plan();
  plan.ranks = 2 + static_cast<int>(chain.below(kMaxRanks - 1));
  plan.interval = 3;
  const std::vector<std::int64_t> steps = save_some(files, plan, kRun, 1);
  const std::filesystem::path newest = kRun / checkpoint::step_name(steps[0]);
  const DamagedCheckpoint at{files, newest, kRun / checkpoint::step_name(steps[1])};
  std::string name;
  if (kind < std::size(kDamages)) {
    name = kDamages[kind].name;
    kDamages[kind].apply(at, chain.random());
  } else {
    // The same steps of the same ranks, sizes and names: of another run.
    save_some(files, plan, kOtherRun, 2);
    const std::filesystem::path other = kOtherRun / newest.filename();
    if (kind == std::size(kDamages)) {
      name = "FileOfAnotherRun";
      const std::filesystem::path path = at.shard(at.any_rank(chain.random()));
      at.overwrite(path, at.read(other / path.filename()));
    } else {
      name = "ManifestOfAnotherRun";
      at.overwrite(newest / "manifest.json", at.read(other / "manifest.json"));
    }
  }
  const Look look = look_behind(chain, files, steps[1]);
  report(judge({.kind = "damage", .seed = seed, .facts = {{"damage", name}, {"ranks", plan.ranks}}}, look, steps[1],
               files.exists(kRun / (".bad-" + checkpoint::step_name(steps[0])))));
}

void damage_several(std::uint64_t seed, const TrialOptions&, const Report& report) {
  const std::size_t damaged = 1 + seed % 3;  // of three
  LifeChain chain("damage_several", seed, kRun, report);
  MemoryFiles files;
  LifePlan plan = chain.next_plan();
  plan.ranks = 2 + static_cast<int>(chain.below(kMaxRanks - 1));
  plan.interval = 3;
  const std::vector<std::int64_t> steps = save_some(files, plan, kRun, 1);
  nlohmann::json names = nlohmann::json::array();
  for (std::size_t i = 0; i < damaged; ++i) {
    // What needs another whole step to damage with is for the class above.
    const NamedDamage& kind = kDamages[chain.below(8)];
    names.push_back(kind.name);
    kind.apply({files, kRun / checkpoint::step_name(steps[i]), {}}, chain.random());
  }
  const std::int64_t expected = damaged < steps.size() ? steps[damaged] : -1;
  Look look = look_behind(chain, files, expected);
  if (expected < 0) look = look_behind(chain, files, expected);  // and at the start behind that
  bool set_aside = true;
  for (std::size_t i = 0; i < damaged; ++i)
    set_aside = set_aside && files.exists(kRun / (".bad-" + checkpoint::step_name(steps[i])));
  report(judge({.kind = "damage_several", .seed = seed, .facts = {{"damages", names}, {"ranks", plan.ranks}}}, look,
               expected, set_aside));
}

}  // namespace strake::test
