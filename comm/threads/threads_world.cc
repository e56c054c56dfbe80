#include "comm/threads/threads_world.h"

#include <fmt/format.h>

#include <numeric>
#include <utility>

#include "comm/threads/threads_communicator.h"
#include "comm/threads/threads_control.h"
#include "comm/threads/threads_group.h"
#include "runtime/base/check.h"

namespace strake::comm {

ThreadsWorld::ThreadsWorld(int size) : size_(size) {
  STRAKE_CHECK(size > 0, "a world of no ranks");
  all_ranks_.resize(static_cast<std::size_t>(size));
  std::iota(all_ranks_.begin(), all_ranks_.end(), 0);
  communicators_made_.resize(all_ranks_.size());
  controls_made_.resize(all_ranks_.size());
}

ThreadsWorld::~ThreadsWorld() = default;

std::string ThreadsWorld::next_name(std::string_view what, std::vector<int>& made, int rank) {
  STRAKE_CHECK(rank >= 0 && rank < size_, "no such rank");
  const std::lock_guard lock(mutex_);
  return fmt::format("{} {}", what, made[static_cast<std::size_t>(rank)]++);
}

std::unique_ptr<Communicator> ThreadsWorld::make_communicator(int rank) {
  ThreadsGroup& shared = group(next_name("communicator", communicators_made_, rank), all_ranks_);
  return std::make_unique<ThreadsCommunicator>(*this, shared, rank);
}

std::unique_ptr<Control> ThreadsWorld::make_control(int rank) {
  ThreadsGroup& shared = group(next_name("control", controls_made_, rank), all_ranks_);
  return std::make_unique<ThreadsControl>(*this, shared, rank);
}

void ThreadsWorld::fail(int rank, std::string reason) { notice_.raise(rank, std::move(reason)); }

ThreadsGroup& ThreadsWorld::group(const std::string& name, const std::vector<int>& world_ranks) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<ThreadsGroup>& found = groups_[name];
  if (found == nullptr) found = std::make_unique<ThreadsGroup>(name, world_ranks, notice_);
  STRAKE_CHECK(found->world_ranks() == world_ranks, "ranks disagree on the members of " + name);
  return *found;
}

}  // namespace strake::comm
