#include "launch/train/saves.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "launch/job/agreement.h"

namespace strake::launch {

Saves::Saves(const Config& config, const RankParts& parts, OpenRun& run, CheckpointPolicy& policy, LiveView& view)
    : config_(config), parts_(parts), trainer_(*run.trainer), log_(*run.log), policy_(policy), view_(view) {}

bool Saves::make_room(std::int64_t step, bool last) {
  if (!writing_.has_value()) return true;
  const Clock::time_point due = Clock::now();
  const Seconds interval = due - begun_;
  view_.doing("checkpoint");
  bool room = true;
  if (!last) {
    const auto section = parts_.at(
        fmt::format("checkpoint of step {}, which that of step {} waits for", *writing_, step), Patience::kLong);
    if (config_.checkpoint.if_busy == IfBusy::kWait)
      trainer_.checkpointer().wait_for(std::max(interval, kLeastPatience) - in_the_way_);
    const std::vector<std::string> told = parts_.control.all_gather(ended() ? "ended" : "writes");
    room = std::ranges::count(told, "ended") == parts_.control.size();
    say_busy(step, interval, Clock::now() - due, !room);
  }
  if (room) finish();
  in_the_way_ += Clock::now() - due;
  if (!room) policy_.begun(Clock::now());
  return room;
}

void Saves::begin(const checkpoint::Meta& meta, bool last) {
  view_.doing("checkpoint");
  const auto section = parts_.at(fmt::format("checkpoint of step {}", meta.step), Patience::kLong);
  begun_ = Clock::now();
  waited_ = std::exchange(in_the_way_, Seconds(0));
  trainer_.save(meta);
  writing_ = meta.step;
  policy_.begun(Clock::now());
  if (last || trainer_.checkpointer().holds() == checkpoint::Holds::kTraining) finish(true);
}

bool Saves::ended() const { return writing_.has_value() && trainer_.checkpointer().ended(); }

void Saves::finish(bool stood_still) {
  if (!writing_.has_value()) return;
  const std::int64_t step = *std::exchange(writing_, std::nullopt);
  const auto section = parts_.at(fmt::format("checkpoint of step {}, until it is durable", step), Patience::kLong);
  checkpoint::SaveReport report = as_agreed([&] { return trainer_.checkpointer().finish(); });
  if (stood_still) report.returned_s = report.durable_s;
  policy_.durable(step);
  if (parts_.watch != nullptr) parts_.watch->durable(step);
  if (parts_.leads()) log_.checkpoint(step, report, waited_);
  view_.saved(step, report, waited_);
}

void Saves::say_busy(std::int64_t step, Seconds interval, Seconds waited, bool left_out) {
  if (!parts_.leads() || (!left_out && waited < kWorthALine)) return;
  // Of many alike the first, the second, the fourth, ...
  if (!std::has_single_bit(static_cast<std::uint64_t>(++busy_))) return;
  parts_.log.warning(
      "a checkpoint is due behind step {}, {:.2f} s after that of step {}, which is still being written: {}. "
      "Checkpoints "
      "come faster than the disk takes them; raise checkpoint.{}{}",
      step, interval.count(), *writing_,
      left_out ? "it is left out" : fmt::format("training waited for it {:.1f} s", waited.count()),
      config_.checkpoint.every.has_value() ? "every" : "every_minutes",
      busy_ > 1 ? fmt::format(" (so far {} times)", busy_) : std::string());
}

}  // namespace strake::launch
