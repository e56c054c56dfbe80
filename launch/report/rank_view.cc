#include "launch/report/rank_view.h"

#include <unistd.h>

namespace strake::launch {

RankView::RankView(LogFormat format, const Logger& log, RankWatch* watch)
    : style_(view_style(format, screen_of(STDERR_FILENO))),
      output_(STDERR_FILENO, [this](std::int64_t lines) { return LiveView::gap_text(style_, lines); }),
      view_(style_, log,
            {.write = [this](std::string_view text) { output_.write(text); },
             .columns = [] { return screen_of(STDERR_FILENO).columns; }}),
      log_(log.to(view_)) {
  if (watch != nullptr) voice_.emplace(*watch, log_);
}

}  // namespace strake::launch
