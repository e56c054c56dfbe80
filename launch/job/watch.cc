#include "launch/job/watch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "launch/job/exit_report.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"

namespace strake::launch {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Of one look to the next: a longer gap is time in which this process did not run.
constexpr milliseconds kMostBetweenLooks{1000};
// What ranks tell each other, beside the names of signals.
constexpr std::string_view kSaidWhy = "said why it ends the job";
// How long a rank whose deadline has passed leaves the word to a lower one that has asked where it is.
constexpr milliseconds kDeference{5000};

struct HangError : Error {
  explicit HangError(const std::string& message) : Error(ExitCode::kHang, message) {}
};
struct PeerDiedError : Error {
  explicit PeerDiedError(const std::string& message) : Error(ExitCode::kPeerOrDeviceLost, message) {}
};

std::string seconds(milliseconds time) { return fmt::format("{:.0f} s", static_cast<double>(time.count()) / 1e3); }

}  // namespace

struct RankWatch::Impl {
  Impl(Options options_in, StopSignals& signals_in) : options(std::move(options_in)), signals(signals_in) {
    limit = options.limit;
    handlers = {.where = [this] { return where(); },
                .told =
                    [this](int rank, std::string_view text) {
                      if (text == kSaidWhy) {
                        why_is_known = true;
                      } else {
                        acknowledge(rank, text);
                      }
                    },
                .asked =
                    [this](int rank) {
                      if (rank < options.rank) asked_by_lower = steady_clock::now();
                    }};
    thread = std::thread([this] { run(); });
  }
  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_all();
    thread.join();
  }

  void enter(std::string what_now, Patience patience_now) {
    const std::lock_guard lock(mutex);
    what = std::move(what_now);
    patience = patience_now;
    still = milliseconds(0);
  }

  // --- the watch's own thread from here on ---

  void run() {
    steady_clock::time_point last = steady_clock::now();
    std::unique_lock lock(mutex);
    while (!stopping) {
      wake.wait_for(lock, options.poll);
      const steady_clock::time_point now = steady_clock::now();
      const milliseconds most = limit.count() > 0 ? std::min(kMostBetweenLooks, limit / 4) : kMostBetweenLooks;
      still += std::min(std::chrono::duration_cast<milliseconds>(now - last), most);
      last = now;
      const bool hangs = limit.count() > 0 && still > limit * static_cast<int>(patience);
      lock.unlock();
      try {
        look(hangs);
      } catch (const std::exception& error) {
        // A roll call that fails must not hide what it was called for; the training thread meets the same failure.
        if (!std::exchange(failed, true)) log.warning("the watch of this rank cannot ask others: {}", error.what());
      }
      lock.lock();
    }
  }

  void look(bool hangs) {
    const std::lock_guard lock(call_mutex);
    if (roll_call != nullptr && !failed) roll_call->serve(handlers);
    if (const int signal = signals.requested(); signal != 0 && !std::exchange(said_request, true)) {
      if (options.rank == 0) {
        acknowledge(0, name_of_signal(signal));
      } else if (roll_call != nullptr) {
        roll_call->tell(0, name_of_signal(signal));
      }
    }
    if (signals.terminated() && !std::exchange(said_termination, true)) judge_termination();
    if (hangs && !has_ended) judge_hang();
  }

  // On rank 0, once for all ranks.
  void acknowledge(int rank, std::string_view signal) {
    if (std::exchange(acknowledged, true)) return;
    const std::string from = on_rank(rank);
    const std::lock_guard lock(mutex);
    std::string then;
    if (is_ending) {
      then = "the last step is done, the run is ending";
    } else if (step == 0) {
      then = "stopping before the first step";
    } else {
      then = fmt::format("stopping after step {} at the latest, then a checkpoint", step + 2);
      if (signal == name_of_signal(SIGINT)) then += "; Ctrl-C once more to stop at once";
    }
    log.info("{}{}: {}", signal, from, then);
  }

  std::string on_rank(int rank) const { return options.ranks == 1 ? "" : fmt::format(" on rank {}", rank); }

  std::string where() {
    std::string text;
    {
      const std::lock_guard lock(mutex);
      text = fmt::format("{}, for {}", what, seconds(still));
    }
    const std::string waits = communicator == nullptr ? "" : communicator->waits_for();
    return waits.empty() ? text : fmt::format("{}; {}", text, waits);
  }

  void tell_all(std::string_view text) {
    for (int other = 0; roll_call != nullptr && !failed && other < options.ranks; ++other) {
      if (other != options.rank) roll_call->tell(other, text);
    }
  }

  // All answers, own included; empty texts: none came.
  std::vector<std::optional<std::string>> ask(milliseconds answer_limit) {
    if (roll_call == nullptr || failed) return {where()};
    return roll_call->ask(answer_limit, handlers);
  }

  static std::vector<std::size_t> silent(const std::vector<std::optional<std::string>>& answers) {
    std::vector<std::size_t> ranks;
    for (std::size_t rank = 0; rank < answers.size(); ++rank) {
      if (!answers[rank].has_value()) ranks.push_back(rank);
    }
    return ranks;
  }

  void judge_termination() {
    if (options.ranks > 1 && roll_call == nullptr) {
      if (has_left) return;  // this rank is ending already, with a code of its own
      end(PeerDiedError("SIGTERM while the ranks are not connected: nothing is trained and nothing lost"));
    }
    const std::vector<std::size_t> missing = silent(ask(kTerminationLimit));
    if (missing.empty()) {
      signals.request(SIGTERM);
      return;
    }
    if (why_is_known) return options.end_job(static_cast<int>(ExitCode::kPeerOrDeviceLost));
    std::int64_t kept = -1;
    {
      const std::lock_guard lock(mutex);
      kept = durable_step;
    }
    end(PeerDiedError(fmt::format(
        "SIGTERM, and rank {} does not answer: dead or stopped. Ending without a checkpoint; {}",
        fmt::join(missing, ", "),
        kept >= 0 ? fmt::format("the last one is of step {}", kept) : std::string("this attempt has written none"))));
  }

  void judge_hang() {
    const auto now = steady_clock::now();
    // One verdict is enough: the lowest rank that has noticed speaks.
    if (asked_by_lower.has_value() && now - *asked_by_lower < kDeference) return;
    const std::vector<std::optional<std::string>> answers = ask(kHangAnswerLimit);
    if (asked_by_lower.has_value() && steady_clock::now() - *asked_by_lower < kDeference) return;
    {
      // Whoever has moved meanwhile does not hang.
      const std::lock_guard lock(mutex);
      if (still <= limit * static_cast<int>(patience)) return;
    }
    std::string others;
    const std::vector<std::size_t> missing = silent(answers);
    if (roll_call == nullptr && options.ranks > 1) others += ". The ranks are not connected";
    if (!missing.empty()) {
      others += fmt::format(". No answer from rank {}: stopped, dead or cut off", fmt::join(missing, ", "));
    }
    constexpr std::size_t kMostShown = 8;
    std::size_t shown = 0;
    for (std::size_t rank = 0; roll_call != nullptr && rank < answers.size() && shown < kMostShown; ++rank) {
      if (rank == static_cast<std::size_t>(options.rank) || !answers[rank].has_value()) continue;
      others += fmt::format(". Rank {} is at: {}", rank, *answers[rank]);
      ++shown;
    }
    end(HangError(
        fmt::format("hang: nothing moves at: {}{}. If this may take longer, raise run.hang_s", where(), others)));
  }

  void end(const Error& error) {
    has_ended = true;
    const int code = report_error(error, options.rank, options.ranks);
    ::alarm(10);  // if not even ending works
    tell_all(kSaidWhy);
    if (communicator != nullptr) communicator->abort();
    options.end_job(code);
  }

  Options options;
  StopSignals& signals;

  std::mutex call_mutex;  // of what the watch's thread calls; taken before `mutex`
  std::unique_ptr<comm::RollCall> roll_call;
  Logger log;
  bool has_ended = false;     // the job, by this watch
  bool why_is_known = false;  // a peer has said why it ends the job
  bool has_left = false;      // had a roll call, and has none any more
  comm::Communicator* communicator = nullptr;
  std::mutex mutex;  // of what follows
  std::condition_variable wake;
  bool stopping = false;
  std::string what = "start-up";
  Patience patience = Patience::kLong;
  milliseconds limit{0};
  milliseconds still{0};  // since the training thread last moved
  std::int64_t step = 0;
  std::int64_t durable_step = -1;
  bool is_ending = false;

  // Of the watch's thread.
  comm::RollCall::Handlers handlers;
  std::optional<steady_clock::time_point> asked_by_lower;
  bool said_request = false, said_termination = false, acknowledged = false, failed = false;

  std::thread thread;  // last: it uses all of the above
};

milliseconds hang_limit(const Config& config) {
  // Rounded up: zero means never.
  return std::chrono::ceil<milliseconds>(std::chrono::duration<double>(config.run.hang_s));
}

RankWatch::RankWatch(Options options)
    : signals_(options.after), impl_(std::make_unique<Impl>(std::move(options), signals_)) {}

RankWatch::~RankWatch() = default;

RankWatch::Peers::Peers(RankWatch& watch, std::unique_ptr<comm::RollCall> roll_call) : watch_(watch) {
  const std::lock_guard lock(watch_.impl_->call_mutex);
  watch_.impl_->roll_call = std::move(roll_call);
}

RankWatch::Peers::~Peers() {
  const std::lock_guard lock(watch_.impl_->call_mutex);
  watch_.impl_->roll_call.reset();
  watch_.impl_->has_left = true;
}

void RankWatch::set_limit(milliseconds limit) {
  const std::lock_guard lock(impl_->mutex);
  impl_->limit = limit;
}

RankWatch::Communication::Communication(RankWatch& watch, comm::Communicator& communicator) : watch_(watch) {
  const std::lock_guard lock(watch_.impl_->call_mutex);
  watch_.impl_->communicator = &communicator;
}

RankWatch::Communication::~Communication() {
  const std::lock_guard lock(watch_.impl_->call_mutex);
  watch_.impl_->communicator = nullptr;
}

void RankWatch::at_step(std::int64_t step) {
  const std::lock_guard lock(impl_->mutex);
  impl_->step = step;
}

void RankWatch::durable(std::int64_t step) {
  const std::lock_guard lock(impl_->mutex);
  impl_->durable_step = step;
}

void RankWatch::ending() {
  const std::lock_guard lock(impl_->mutex);
  impl_->is_ending = true;
}

void RankWatch::stops_behind(std::int64_t step, int signal, int rank) {
  const std::lock_guard lock(impl_->call_mutex);
  if (impl_->options.rank != 0 || std::exchange(impl_->acknowledged, true)) return;
  impl_->log.info("{}{}: stopping after step {}, then a checkpoint", name_of_signal(signal), impl_->on_rank(rank),
                  step);
}

void RankWatch::said_why() {
  const std::lock_guard lock(impl_->call_mutex);
  impl_->tell_all(kSaidWhy);
}

RankWatch::Voice::Voice(RankWatch& watch, const Logger& log) : watch_(watch) {
  const std::lock_guard lock(watch_.impl_->call_mutex);
  watch_.impl_->log = log;
}

RankWatch::Voice::~Voice() {
  const std::lock_guard lock(watch_.impl_->call_mutex);
  watch_.impl_->log = Logger();
  watch_.impl_->acknowledged = true;  // the run has said how it ended
}

RankWatch::Section::Section(RankWatch& watch, std::string what, Patience patience) : watch_(&watch) {
  {
    const std::lock_guard lock(watch.impl_->mutex);
    outer_what_ = watch.impl_->what;
    outer_patience_ = watch.impl_->patience;
  }
  watch.impl_->enter(std::move(what), patience);
}

RankWatch::Section::Section(Section&& other) noexcept
    : watch_(std::exchange(other.watch_, nullptr)),
      outer_what_(std::move(other.outer_what_)),
      outer_patience_(other.outer_patience_) {}

RankWatch::Section::~Section() {
  if (watch_ != nullptr) watch_->impl_->enter(std::move(outer_what_), outer_patience_);
}

}  // namespace strake::launch
