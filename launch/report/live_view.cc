#include "launch/report/live_view.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "launch/report/mfu.h"
#include "runtime/base/line_output.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::system_clock;

constexpr std::string_view kClearLine = "\r\x1b[K";
constexpr std::chrono::milliseconds kBetweenDrawings{100};
constexpr int kLineColumns = 100;   // of a log line, prefix and time included
constexpr int kUsualColumns = 100;  // of a bar where nobody tells
constexpr double kFarBehind = 1.1;  // a rank, over the mean of ranks: worth a word

int columns_of_terminal(int descriptor) {
  winsize size{};
  return ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

// Of the terminal that started us, which a launcher's pipe leads to in the end; 0: there is none.
int columns_of_controlling_terminal() {
  const int terminal = ::open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) return 0;
  const int columns = columns_of_terminal(terminal);
  ::close(terminal);
  return columns;
}

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

int columns_of_environment() {
  const std::string_view text = environment("COLUMNS");
  int columns = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), columns);
  return error == std::errc() && end == text.data() + text.size() && columns > 0 ? columns : 0;
}

std::string_view name_of(LogLevel level) {
  constexpr std::array<std::string_view, 4> kNames{"debug", "info", "warning", "error"};
  return kNames[static_cast<std::size_t>(level)];
}

std::string json_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n'; }

Json or_null(const std::optional<double>& value) { return value.has_value() ? Json(*value) : Json(); }

Json or_null(const std::optional<HeldOut>& value) {
  return value.has_value() ? Json{{"step", value->step}, {"loss", value->loss}} : Json();
}

Json or_null(const std::optional<Seconds>& value) { return value.has_value() ? Json(value->count()) : Json(); }

}  // namespace

Screen screen_of(int descriptor) {
  Screen screen;
  screen.terminal = ::isatty(descriptor) != 0;
  screen.columns = screen.terminal ? columns_of_terminal(descriptor) : columns_of_environment();
  if (screen.columns == 0 && !screen.terminal) screen.columns = columns_of_controlling_terminal();
  const std::string_view term = environment("TERM");
  screen.plain = term.empty() || term == "dumb" || !environment("NO_COLOR").empty();
  return screen;
}

ViewStyle view_style(LogFormat format, const Screen& screen) {
  switch (format) {
    case LogFormat::kBar:
      return ViewStyle::kBar;
    case LogFormat::kLines:
      return ViewStyle::kLines;
    case LogFormat::kJson:
      return ViewStyle::kJson;
    case LogFormat::kAuto:
      break;
  }
  return screen.terminal && screen.columns > 0 && !screen.plain ? ViewStyle::kBar : ViewStyle::kLines;
}

void say_early(LogFormat format, const Logger& log, LogLevel level, std::string_view text) {
  LiveView view(
      view_style(format, screen_of(STDERR_FILENO)), log,
      {.write = [](std::string_view lines) { write_lines(STDERR_FILENO, lines); }, .columns = [] { return 0; }});
  log.to(view).write(level, text);
}

LiveView::LiveView(ViewStyle style, Logger log, Parts parts)
    : style_(style), log_(log), parts_(std::move(parts)), tells_(log.rank() == 0 && log.says(LogLevel::kInfo)) {}

LiveView::~LiveView() { close(); }

void LiveView::message(const Logger& from, LogLevel level, std::string_view text) {
  const std::lock_guard lock(mutex_);
  if (style_ == ViewStyle::kJson) {
    event("message", {{"level", name_of(level)}, {"rank", from.rank()}, {"text", text}});
  } else {
    show(from.format(level, text, stamp(parts_.now().time)));
  }
}

void LiveView::start(const StartFacts& facts, const Work& work, std::int64_t every) {
  if (!tells_) return;
  const std::lock_guard lock(mutex_);
  start_ = facts;
  every_ = every;
  time_left_ = TimeLeft(work);
  window_ = StepBreakdown(facts.ranks);
  began_ = parts_.now();
  if (style_ != ViewStyle::kJson) return say(LogLevel::kInfo, start_text(facts));
  Json rank_map = Json::array();
  for (const RankDescription& rank : facts.rank_map) rank_map.push_back(to_json(rank));
  event("start", {{"run_dir", facts.run_dir},
                  {"attempt", facts.attempt},
                  {"first_step", facts.first_step},
                  {"last_step", facts.last_step},
                  {"steps", facts.steps},
                  {"ranks", facts.ranks},
                  {"device", facts.device},
                  {"communicator", facts.communicator},
                  {"model", facts.model},
                  {"parameters", facts.parameters},
                  {"dtype", strake::name_of(facts.dtype)},
                  {"gradient_dtype", strake::name_of(facts.gradient_dtype)},
                  {"wire_dtype", strake::name_of(facts.wire_dtype)},
                  {"micro_batch", facts.micro_batch},
                  {"accumulation", facts.accumulation},
                  {"global_batch", facts.global_batch},
                  {"sequence", facts.sequence},
                  {"tokens_per_step", facts.tokens_per_step},
                  {"device_bytes", facts.device_bytes},
                  {"host_bytes", facts.host_bytes},
                  {"sequences", facts.sequences},
                  {"first_sample", facts.first_sample},
                  {"rank_map", std::move(rank_map)}});
}

void LiveView::step(const StepSummary& summary, double learning_rate, std::span<const RankStep> ranks,
                    const NextCheckpoint& next_checkpoint) {
  if (!tells_) return;
  const std::lock_guard lock(mutex_);
  double training_ms = 0, exposed_ms = 0;
  for (const RankStep& rank : ranks) {
    training_ms += rank.wall_ms - rank.of(StepClass::kCheckpoint) - rank.of(StepClass::kOther);
    exposed_ms += rank.of(StepClass::kExposedComm);
  }
  training_ms_.add(training_ms / static_cast<double>(ranks.size()));
  exposed_ms_.add(exposed_ms / static_cast<double>(ranks.size()));
  time_left_.add_step(Seconds(training_ms / static_cast<double>(ranks.size()) / 1e3));
  window_.add(ranks);
  last_ = summary;
  learning_rate_ = learning_rate;
  next_checkpoint_ = next_checkpoint;
  doing_.clear();
  say_epoch(summary.step);

  const Instant now = parts_.now();
  const bool due = summary.step % every_ == 0 || summary.step == start_.first_step + 1;
  if (due) {
    const StepBreakdown::Slowest slowest = window_.slowest();
    slow_.reset();
    if (slowest.factor >= kFarBehind) slow_ = {slowest.rank, slowest.factor, slowest.step_class};
    window_.clear();
  }
  if (style_ == ViewStyle::kBar) {
    if (now.steady - last_drawing_.steady >= kBetweenDrawings || summary.step == start_.last_step) draw();
    return;
  }
  if (!due) return;
  const Progress p = progress(now);
  if (style_ == ViewStyle::kLines) {
    const std::string prefix = log_.format(LogLevel::kInfo, "", stamp(now.time));  // ends in a newline
    return show(prefix.substr(0, prefix.size() - 1) + line_text(p, kLineColumns + 1 - static_cast<int>(prefix.size())) +
                '\n');
  }
  event("step", {{"step", p.step},
                 {"steps", p.steps},
                 {"loss", p.loss},
                 {"lr", p.learning_rate},
                 {"grad_norm", p.grad_norm},
                 {"tokens_per_s", p.tokens_per_s},
                 {"mfu", or_null(p.mfu)},
                 {"exposed", or_null(p.exposed)},
                 {"elapsed_s", p.elapsed.count()},
                 {"eta_s", or_null(p.left)},
                 {"next_checkpoint_step", p.next_checkpoint.step.has_value() ? Json(*p.next_checkpoint.step) : Json()},
                 {"next_checkpoint_s", or_null(p.next_checkpoint.in)}});
}

void LiveView::say_epoch(std::int64_t step) {
  const std::int64_t sample = start_.first_sample + (step - 1 - start_.first_step) * start_.global_batch;
  const auto epoch = epoch_beginning(sample, start_.global_batch, start_.sequences);
  // Of many short epochs the second stands for all.
  if (!epoch.has_value() || (*epoch > 2 && start_.sequences < every_ * start_.global_batch)) return;
  say(LogLevel::kInfo,
      fmt::format("step {}: epoch {} begins, sequences of {} are seen again", step, *epoch, start_.train_tokens));
}

void LiveView::doing(std::string_view what) {
  const std::lock_guard lock(mutex_);
  doing_ = what;
  if (drawn_) draw();
}

void LiveView::evaluated(const HeldOut& held_out, std::int64_t tokens, Seconds time) {
  if (!tells_) return;
  const std::lock_guard lock(mutex_);
  doing_.clear();
  time_left_.add_evaluation(time);
  if (style_ == ViewStyle::kJson) {
    return event(
        "eval",
        {{"step", held_out.step}, {"val_loss", held_out.loss}, {"val_tokens", tokens}, {"seconds", time.count()}});
  }
  say(LogLevel::kInfo, fmt::format("step {}: held-out loss {:.4f} nats a token, over {} tokens in {}", held_out.step,
                                   held_out.loss, count_text(static_cast<double>(tokens)), duration_text(time)));
}

void LiveView::saved(std::int64_t step, const checkpoint::SaveReport& report, Seconds waited) {
  if (!tells_) return;
  const std::lock_guard lock(mutex_);
  doing_.clear();
  const Seconds stood_still = waited + Seconds(report.returned_s);
  time_left_.add_checkpoint(stood_still);
  if (style_ == ViewStyle::kJson) {
    return event("checkpoint", {{"step", step},
                                {"bytes_a_rank", report.bytes},
                                {"seconds", report.durable_s},
                                {"returned_s", report.returned_s},
                                {"snapshot_s", report.snapshot_s},
                                {"waited_s", waited.count()}});
  }
  std::string text = fmt::format("step {}: checkpoint, {:.1f} MB a rank, durable after {}", step,
                                 static_cast<double>(report.bytes) / 1e6, duration_text(Seconds(report.durable_s)));
  if (report.returned_s < report.durable_s)
    text += fmt::format("; training went on after {}", duration_text(stood_still));
  say(LogLevel::kInfo, text);
}

void LiveView::end(const EndFacts& facts, const StepBreakdown& breakdown) {
  if (!tells_) return;
  const std::lock_guard lock(mutex_);
  closed_ = true;
  if (style_ != ViewStyle::kJson) return say(LogLevel::kInfo, end_text(facts));
  Json means;
  if (breakdown.steps() > 0) {
    const RankStep mean = breakdown.mean();
    means["wall"] = mean.wall_ms;
    for (std::size_t i = 0; i < kStepClasses; ++i) {
      means[std::string(strake::name_of(static_cast<StepClass>(i)))] = mean.class_ms[i];
    }
  }
  const TrainResult& result = facts.result;
  event("end", {{"run_dir", facts.run_dir},
                {"first_step", result.first_step},
                {"steps_done", result.steps_done},
                {"steps", facts.steps},
                {"stop_signal", result.stop_signal},
                {"first_loss", or_null(result.first_loss)},
                {"last_loss", or_null(result.last_loss)},
                {"held_out", or_null(result.last_held_out)},
                {"best_held_out", or_null(result.best_held_out)},
                {"checkpoint", facts.checkpoint.has_value() ? Json(*facts.checkpoint) : Json()},
                {"seconds", facts.duration.count()},
                {"breakdown_ms", means}});
}

void LiveView::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  if (drawn_) parts_.write("\n");  // from the beginning of the bar's line: the bar stays above
  drawn_ = false;
}

std::string LiveView::gap_text(ViewStyle style, std::int64_t lines) {
  const std::string text = fmt::format("{} line{} could not be written here and {} dropped", lines,
                                       lines == 1 ? "" : "s", lines == 1 ? "was" : "were");
  if (style != ViewStyle::kJson) return Logger().format(LogLevel::kWarning, text);
  return json_line({{"event", "message"}, {"level", "warning"}, {"dropped_lines", lines}, {"text", text}});
}

void LiveView::say(LogLevel level, std::string_view text) {
  if (style_ == ViewStyle::kJson) {
    event("message", {{"level", name_of(level)}, {"rank", log_.rank()}, {"text", text}});
  } else {
    show(log_.format(level, text, stamp(parts_.now().time)));
  }
}

void LiveView::show(std::string_view lines) {
  if (style_ != ViewStyle::kBar) return parts_.write(lines);
  drawn_ = drawn_ && !closed_;
  parts_.write(std::string(kClearLine) + std::string(lines) + (drawn_ ? bar() : ""));
}

void LiveView::draw() {
  if (closed_) return;
  drawn_ = true;
  last_drawing_ = parts_.now();
  parts_.write(std::string(kClearLine) + bar());
}

// One column stays free: a character in the last one may wrap the line.
std::string LiveView::bar() const {
  const int columns = parts_.columns();
  return bar_text(progress(parts_.now()), (columns > 0 ? columns : kUsualColumns) - 1) + '\r';
}

void LiveView::event(std::string_view name, Json fields) {
  const auto time = std::chrono::floor<std::chrono::milliseconds>(parts_.now().time);
  const std::time_t seconds = system_clock::to_time_t(time);
  Json line{{"event", name},
            {"time", fmt::format("{:%FT%T}.{:03}Z", fmt::gmtime(seconds), time.time_since_epoch().count() % 1000)}};
  line.update(fields);
  parts_.write(json_line(line));
}

// "12:00:01"; with the date where a day begins. Nothing beside a bar: there one looks at it now.
std::string LiveView::stamp(system_clock::time_point time) {
  if (style_ != ViewStyle::kLines) return "";
  const std::tm local = fmt::localtime(system_clock::to_time_t(time));
  const bool new_day = local.tm_yday != last_day_;
  last_day_ = local.tm_yday;
  return new_day ? fmt::format("{:%F %T}", local) : fmt::format("{:%T}", local);
}

Progress LiveView::progress(Instant now) const {
  Progress out;
  out.step = last_.step;
  out.steps = start_.steps;
  out.loss = last_.loss;
  out.learning_rate = learning_rate_;
  out.grad_norm = last_.grad_norm;
  const double step_ms = training_ms_.value();
  out.tokens_per_s = step_ms > 0 ? static_cast<double>(start_.tokens_per_step) / (step_ms / 1e3) : 0;
  if (start_.peak_flops > 0) {
    out.mfu = mfu(out.tokens_per_s, start_.flops_per_token, start_.peak_flops, start_.ranks);
  }
  if (start_.ranks > 1 && step_ms > 0) out.exposed = exposed_ms_.value() / step_ms;
  out.elapsed = now.steady - began_.steady;
  out.left = time_left_.after(last_.step);
  out.next_checkpoint = next_checkpoint_;
  out.doing = doing_;
  out.slow = slow_;
  return out;
}

}  // namespace strake::launch
