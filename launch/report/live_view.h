// LiveView: what a run tells while it works. A bar on a terminal that is drawn in place, with messages above it; or a
// line every log.every steps with its time; or JSON objects, for programs (docs/formats.md).
//
// All messages of the rank go through it (it is their LogSink), so that they never land in the middle of the bar. Other
// ranks write to the same terminal: each text leaves the cursor at the beginning of the bar's line, which the others
// clear and the next drawing restores. Whatever is shown is one call of `write`.
// Threads: any; one mutex. Errors: none.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "checkpoint/checkpointer.h"
#include "launch/config.h"
#include "launch/report/breakdown.h"
#include "launch/report/progress.h"
#include "launch/report/run_report.h"
#include "launch/report/time_left.h"
#include "launch/train/train.h"
#include "runtime/base/log.h"

namespace strake::launch {

enum class ViewStyle : std::uint8_t { kBar, kLines, kJson };

// What standard error, or what it is forwarded to, looks like.
struct Screen {
  bool terminal = false;
  int columns = 0;     // 0: not known
  bool plain = false;  // TERM is "dumb" or missing, or NO_COLOR is set: nothing that moves
};
// As it is now: a terminal may change its width at any time. Of a pipe (a launcher's) COLUMNS counts, then the width of
// the terminal that the process was started from.
Screen screen_of(int descriptor);

ViewStyle view_style(LogFormat format, const Screen& screen);

// A message of a run that has no view yet, as its view will show them.
void say_early(LogFormat format, const Logger& log, LogLevel level, std::string_view text);

class LiveView final : public LogSink {
 public:
  struct Instant {
    std::chrono::system_clock::time_point time;
    std::chrono::steady_clock::time_point steady;
    static Instant now() { return {std::chrono::system_clock::now(), std::chrono::steady_clock::now()}; }
  };
  // What it stands on, for tests to replace.
  struct Parts {
    std::function<void(std::string_view)> write;
    std::function<int()> columns;
    std::function<Instant()> now = Instant::now;
  };

  // `log`: of this rank, as it would write without a view. Only rank 0 tells progress, and only if it says kInfo.
  LiveView(ViewStyle style, Logger log, Parts parts);
  // Leaves the bar where it is and goes to the next line.
  ~LiveView() override;
  LiveView(const LiveView&) = delete;
  LiveView& operator=(const LiveView&) = delete;

  void message(const Logger& from, LogLevel level, std::string_view text) override;

  // Before the first step.
  void start(const StartFacts& facts, const Work& work, std::int64_t every);
  // Step `summary.step` has ended, on every rank. REQUIRES: start().
  void step(const StepSummary& summary, double learning_rate, std::span<const RankStep> ranks,
            const NextCheckpoint& next_checkpoint);
  // The run does something else than training until the next call of another function: "evaluation".
  void doing(std::string_view what);
  void evaluated(const HeldOut& held_out, std::int64_t tokens, Seconds time);
  // The checkpoint of `step` is durable. `waited`: for the one before, until it could begin.
  void saved(std::int64_t step, const checkpoint::SaveReport& report, Seconds waited);
  // `breakdown`: mean of the steps.
  void end(const EndFacts& facts, const StepBreakdown& breakdown);
  // Nothing is drawn any more; messages still come through. Before others write, on the way out.
  void close();

  // What stands where lines were dropped.
  static std::string gap_text(ViewStyle style, std::int64_t lines);

 private:
  // All of these with the mutex held.
  void say(LogLevel level, std::string_view text);
  void show(std::string_view lines);
  void draw();
  std::string bar() const;
  void event(std::string_view name, nlohmann::ordered_json fields);
  std::string stamp(std::chrono::system_clock::time_point time);
  Progress progress(Instant now) const;
  void say_epoch(std::int64_t step);

  const ViewStyle style_;
  const Logger log_;
  const Parts parts_;
  const bool tells_;  // progress

  std::mutex mutex_;
  bool drawn_ = false;  // a bar is on the screen
  bool closed_ = false;
  int last_day_ = -1;  // of the last stamp
  std::int64_t every_ = 1;
  StartFacts start_;
  TimeLeft time_left_{Work{}};
  RecentMean training_ms_, exposed_ms_;
  StepBreakdown window_{1};  // since the last line
  Instant began_{}, last_drawing_{};
  StepSummary last_;
  double learning_rate_ = 0;
  NextCheckpoint next_checkpoint_;
  std::optional<Progress::Slow> slow_;
  std::string doing_;
};

}  // namespace strake::launch
