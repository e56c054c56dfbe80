// LifeChain: lives in one folder, one after the other, and what each may rely on of those before it.
//
// A trial is proven by the next life that has got through its start: it verifies every committed checkpoint, loads, and
// compares every byte.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/faults/life.h"
#include "tests/faults/trial.h"

namespace strake::test {

class LifeChain {
 public:
  LifeChain(std::string kind, std::uint64_t seed, const std::filesystem::path& folder, const Report& report)
      : kind_(std::move(kind)), seed_(seed), report_(report), random_(seed) {
    base_.keep = 1 + static_cast<int>(random_() % 3);
    base_.chunk_bytes = std::uint64_t{1024} << (random_() % 4 * 2);
    base_.state_seed = random_();
    std::strncpy(base_.folder, folder.c_str(), sizeof(base_.folder) - 1);
  }

  std::mt19937_64& random() { return random_; }
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  // Of the next life, with ranks and strategy by chance.
  LifePlan next_plan(int most_ranks = kMaxRanks) {
    LifePlan plan = base_;
    plan.ranks = 1 + static_cast<int>(below(static_cast<std::uint64_t>(most_ranks)));
    plan.strategy = static_cast<checkpoint::StrategyKind>(below(4));
    plan.attempt = ++lives_;
    plan.saves = 4 + static_cast<std::int64_t>(below(4));
    plan.interval = 1 + static_cast<std::int64_t>(below(4));
    plan.least = least_;
    plan.most = most_;
    plan.reported = reported_;
    return plan;
  }
  LifePlan looking_plan(int most_ranks = kMaxRanks) {
    LifePlan plan = next_plan(most_ranks);
    plan.saves = 0;
    return plan;
  }
  LifePlan& base() { return base_; }

  // A life has ended. `fault`: it was cut short by one, which is a trial; `facts` say how.
  void ended(const Board& board, bool fault, nlohmann::json facts = nlohmann::json::object()) {
    const std::int64_t loaded = board.loaded;
    if (board.said != 0 && open_.empty()) open_.push_back({.kind = kind_, .seed = seed_, .happened = false});
    if (loaded != -2 || board.said != 0) {
      for (Trial& trial : open_) {
        const std::int64_t kept = std::max<std::int64_t>(loaded, 0);
        trial.facts["loaded"] = loaded;
        trial.facts["next_ranks"] = board.plan.ranks;
        trial.facts["lost_steps"] = std::max<std::int64_t>(trial.facts.value("step", kept) - kept, 0);
        trial.wrong = board.what();
        trial.silent = board.silent;
        report_(trial);
      }
      open_.clear();
    }
    if (fault) {
      facts["life"] = board.plan.attempt;
      facts["ranks"] = board.plan.ranks;
      facts["strategy"] = checkpoint::name_of(board.plan.strategy);
      facts["interval"] = board.plan.interval;
      facts["begun"] = board.begun.load();
      facts["durable"] = board.durable.load();
      // One that did not come to training has lost nothing.
      facts["step"] = loaded == -2 ? std::max<std::int64_t>(least_, 0)
                                   : std::max_element(std::begin(board.step), std::end(board.step))->load();
      open_.push_back({.kind = kind_, .seed = seed_, .facts = std::move(facts)});
    }
    least_ = std::max({least_, board.durable.load(), loaded});
    most_ = std::max(most_, board.begun.load());
    reported_ += board.reported;
  }
  // The last one could not even start.
  void expect_nothing_open() {
    for (Trial& trial : open_) {
      trial.wrong = "the next start did not end its loading";
      report_(trial);
    }
    open_.clear();
  }
  std::int64_t least() const { return least_; }

 private:
  const std::string kind_;
  const std::uint64_t seed_;
  const Report& report_;
  std::mt19937_64 random_;
  LifePlan base_;
  std::int64_t lives_ = 0, least_ = -1, most_ = -1, reported_ = 0;
  std::vector<Trial> open_;  // not proven yet
};

}  // namespace strake::test
