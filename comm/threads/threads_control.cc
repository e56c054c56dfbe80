#include "comm/threads/threads_control.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::comm {

void ThreadsControl::post(std::span<const double> values) {
  STRAKE_CHECK(!pending_, "the previous post was not finished");
  const auto bytes = std::as_bytes(values);
  group_.posted().post(rank_, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "control post");
  pending_ = true;
}

std::vector<double> ThreadsControl::finish() {
  STRAKE_CHECK(std::exchange(pending_, false), "nothing was posted");
  const std::vector<std::string>& notes = group_.posted().collect(rank_, "control finish");
  std::vector<double> values;
  for (const std::string& note : notes) {
    STRAKE_CHECK(note.size() == notes.front().size(), "ranks posted different numbers of values");
    const std::size_t before = values.size();
    values.resize(before + note.size() / sizeof(double));
    if (!note.empty()) std::memcpy(values.data() + before, note.data(), note.size());
  }
  return values;
}

std::vector<std::string> ThreadsControl::exchange(std::string text, std::string call) {
  const std::string what = "control " + call;
  group_.blocking().post(rank_, {call, std::move(text)}, what);
  const std::vector<CallNote>& notes = group_.blocking().collect(rank_, what);
  std::vector<std::string> texts;
  for (std::size_t peer = 0; peer < notes.size(); ++peer) {
    if (notes[peer].call != call) {
      throw DisagreementError(fmt::format(
          "control: the ranks are not at the same call: rank {} is at {}, rank {} at {}",
          group_.world_ranks()[static_cast<std::size_t>(rank_)], call, group_.world_ranks()[peer], notes[peer].call));
    }
    texts.push_back(notes[peer].text);
  }
  return texts;
}

void ThreadsControl::barrier() { exchange({}, "barrier"); }

std::vector<std::string> ThreadsControl::all_gather(std::string_view text) {
  return exchange(std::string(text), "all_gather");
}

std::string ThreadsControl::broadcast(std::string_view text, int root) {
  STRAKE_CHECK(root >= 0 && root < size(), "no such root");
  return exchange(rank_ == root ? std::string(text) : std::string(),
                  fmt::format("broadcast from {}", root))[static_cast<std::size_t>(root)];
}

void ThreadsControl::abort(int exit_code) {
  world_.fail(group_.world_ranks()[static_cast<std::size_t>(rank_)],
              fmt::format("aborted with exit code {}", exit_code));
}

}  // namespace strake::comm
