#include "launch/train/step_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <thread>
#include <utility>

namespace strake::launch {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::microseconds kShortestPause{50};
constexpr std::chrono::milliseconds kLongestPause{5};

// What travels before a rank's times: its share of the loss, and its note.
constexpr std::size_t kNoteLoss = 0, kStopSignal = 1, kCheckpointDue = 2, kSaveEnded = 3, kOwnValues = 4;
constexpr std::size_t kNoteValues = kOwnValues + RankStep::kValues;

}  // namespace

StepReport StepExchange::read(std::int64_t step) const {
  const auto section = parts_.at(fmt::format("step {} on the device", step + 1));
  // The next step is enqueued already, so seeing this one end an eighth of a step late costs nothing; waking more
  // often would take time from the computation.
  const auto begin = steady_clock::now();
  while (!trainer_.complete(step)) {
    parts_.check();
    std::this_thread::sleep_for(
        std::clamp<steady_clock::duration>((steady_clock::now() - begin) / 8, kShortestPause, kLongestPause));
  }
  return trainer_.report(step);
}

void StepExchange::start(StepReport report, const RankNote& note) {
  std::vector<double> values{report.loss, static_cast<double>(note.stop_signal), note.checkpoint_due ? 1.0 : 0.0,
                             note.save_ended ? 1.0 : 0.0};
  rank_step(report).append_to(values);
  parts_.control.post(values);
  told_ = std::move(report);
}

std::optional<FinishedStep> StepExchange::finish() {
  if (!told_.has_value()) return std::nullopt;
  FinishedStep finished{.report = *std::exchange(told_, std::nullopt), .times = {}};
  const auto section = parts_.at(fmt::format("exchange between ranks behind step {}", finished.step()));
  const std::vector<double> values = parts_.control.finish();
  const int ranks = parts_.control.size();
  finished.save_ended = true;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto note = std::span(values).subspan(static_cast<std::size_t>(rank) * kNoteValues, kNoteValues);
    finished.loss += note[kNoteLoss];
    finished.save_ended = finished.save_ended && note[kSaveEnded] != 0;
    if (note[kStopSignal] != 0 && finished.stop_signal == 0) {
      finished.stop_signal = static_cast<int>(note[kStopSignal]);
      finished.stop_rank = rank;
    }
    finished.times.push_back(RankStep::from(note.subspan(kOwnValues)));
  }
  finished.checkpoint_due = values[kCheckpointDue] != 0;  // rank 0's
  return finished;
}

}  // namespace strake::launch
