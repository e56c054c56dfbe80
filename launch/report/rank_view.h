// RankView: standard error of a rank that trains: the view, what it is written with, and the watch's voice in it.
// Threads: the training thread makes and destroys it; what it hands out says who may call that. Errors: none.
#pragma once

#include <optional>

#include "launch/config.h"
#include "launch/job/watch.h"
#include "launch/report/live_view.h"
#include "runtime/base/line_output.h"
#include "runtime/base/log.h"

namespace strake::launch {

class RankView {
 public:
  // `log`: of this rank, as it would write without a view. `watch`: null: none.
  RankView(LogFormat format, const Logger& log, RankWatch* watch);
  RankView(const RankView&) = delete;
  RankView& operator=(const RankView&) = delete;

  LiveView& live() { return view_; }
  const Logger& log() const { return log_; }  // through the view

 private:
  ViewStyle style_;
  LineOutput output_;
  LiveView view_;
  Logger log_;
  std::optional<RankWatch::Voice> voice_;
};

}  // namespace strake::launch
