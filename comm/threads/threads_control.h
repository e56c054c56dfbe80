// ThreadsControl: control between ranks that are threads of one process (see threads_world.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/control.h"
#include "comm/threads/threads_group.h"
#include "comm/threads/threads_world.h"

namespace strake::comm {

class ThreadsControl final : public Control {
 public:
  ThreadsControl(ThreadsWorld& world, ThreadsGroup& group, int rank) : world_(world), group_(group), rank_(rank) {}
  ~ThreadsControl() override { group_.leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return group_.size(); }
  void post(std::span<const double> values) override;
  std::vector<double> finish() override;
  void barrier() override;
  std::vector<std::string> all_gather(std::string_view text) override;
  std::string broadcast(std::string_view text, int root) override;
  std::unique_ptr<Control> duplicate() override { return world_.make_control(rank_); }
  void abort(int exit_code) override;

 private:
  std::vector<std::string> exchange(std::string text, std::string call);

  ThreadsWorld& world_;
  ThreadsGroup& group_;
  const int rank_;
  bool pending_ = false;  // a post is not finished
};

}  // namespace strake::comm
