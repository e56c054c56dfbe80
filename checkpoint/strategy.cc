#include "checkpoint/strategy.h"

#include "runtime/base/check.h"

namespace strake::checkpoint {
namespace {

constexpr WaitSite kBehindTheUpdate{"snapshot waits for the updated weights", Hazard::kReadAfterWrite};

// Straight into host memory.
class Straight : public Strategy {
 public:
  Straight(Device& device, Stream& copy_out, const std::vector<SavedRange>& ranges)
      : device_(device), copy_out_(copy_out), ranges_(ranges), copied_(device.make_event("snapshot done")) {}

  void leave(const Event& state_final) override {
    copy_out_.wait(state_final, kBehindTheUpdate);
    for (const SavedRange& range : ranges_)
      copy_out_.copy({range.label, Phase::kCheckpoint}, range.on_host, range.state);
    copy_out_.record(copied_);
    ticket_ = device_.ticket(copied_);
  }
  const Event& left() const override { return copied_; }
  void arrive() override { device_.host_wait(ticket_); }

 protected:
  Device& device_;

 private:
  Stream& copy_out_;
  const std::vector<SavedRange>& ranges_;
  Event copied_;
  EventTicket ticket_;
};

class Sync final : public Straight {
 public:
  using Straight::Straight;
  Holds holds() const override { return Holds::kTraining; }
  void arrive() override { device_.synchronize(left()); }  // it is the training thread that writes
};

class Pinned final : public Straight {
 public:
  using Straight::Straight;
  Holds holds() const override { return Holds::kNextStep; }
};

class Lazy final : public Straight {
 public:
  using Straight::Straight;
  Holds holds() const override { return Holds::kNextUpdate; }
};

class OnDevice final : public Strategy {
 public:
  OnDevice(Device& device, Stream& copy_out, const std::vector<SavedRange>& ranges)
      : device_(device),
        copy_out_(copy_out),
        ranges_(ranges),
        copied_(device.make_event("snapshot on the device")),
        arrived_(device.make_event("snapshot done")) {}

  Holds holds() const override { return Holds::kNextUpdate; }
  // One stream does both, so that its order keeps them apart, and the next snapshot from this one.
  void leave(const Event& state_final) override {
    copy_out_.wait(state_final, kBehindTheUpdate);
    for (const SavedRange& range : ranges_)
      copy_out_.copy({range.label + " on the device", Phase::kCheckpoint}, range.on_device, range.state);
    copy_out_.record(copied_);
    for (const SavedRange& range : ranges_)
      copy_out_.copy({range.label, Phase::kCheckpoint}, range.on_host, range.on_device);
    copy_out_.record(arrived_);
    ticket_ = device_.ticket(arrived_);
  }
  const Event& left() const override { return copied_; }
  void arrive() override { device_.host_wait(ticket_); }

 private:
  Device& device_;
  Stream& copy_out_;
  const std::vector<SavedRange>& ranges_;
  Event copied_, arrived_;
  EventTicket ticket_;
};

}  // namespace

std::string_view name_of(StrategyKind kind) {
  switch (kind) {
    case StrategyKind::kSync:
      return "sync";
    case StrategyKind::kPinned:
      return "pinned";
    case StrategyKind::kLazy:
      return "lazy";
    case StrategyKind::kDevice:
      return "device";
  }
  return "?";
}

std::unique_ptr<Strategy> make_strategy(StrategyKind kind, Device& device, Stream& copy_out,
                                        const std::vector<SavedRange>& ranges) {
  switch (kind) {
    case StrategyKind::kSync:
      return std::make_unique<Sync>(device, copy_out, ranges);
    case StrategyKind::kPinned:
      return std::make_unique<Pinned>(device, copy_out, ranges);
    case StrategyKind::kLazy:
      return std::make_unique<Lazy>(device, copy_out, ranges);
    case StrategyKind::kDevice:
      return std::make_unique<OnDevice>(device, copy_out, ranges);
  }
  STRAKE_CHECK(false, "no such strategy");
  return nullptr;
}

}  // namespace strake::checkpoint
