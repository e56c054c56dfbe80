#include "comm/weight_gathers.h"

#include <fmt/format.h>

#include <utility>

namespace strake::comm {

WeightGathers::WeightGathers(Device& device, const BucketPlan& plan, const ParamLayout& layout, Tensor weights,
                             Communicator& communicator, Stream& compute, Stream& comm_stream, Overlap overlap)
    : buckets_(plan.buckets),
      bucket_of_(layout.size()),
      weights_(weights),
      communicator_(communicator),
      compute_(compute),
      comm_(comm_stream),
      overlap_(overlap),
      pending_(buckets_.size(), false),
      unused_(buckets_.size()),
      ready_(GradBuckets::kSlots),
      needed_(GradBuckets::kSlots),
      begin_(GradBuckets::kSlots),
      end_(GradBuckets::kSlots) {
  STRAKE_CHECK(weights_.elems() == layout.total_elems(), "weights " + weights_.describe() + " do not lie as planned");
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    STRAKE_CHECK(buckets_[i].elems() % communicator_.size() == 0, "a bucket is no equal pieces");
    for (std::size_t param = index_of(buckets_[i].first); param <= index_of(buckets_[i].last); ++param)
      bucket_of_[param] = i;
    labels_.push_back(fmt::format("bucket {} all-gather", i));
    updated_.push_back(device.make_event(fmt::format("bucket {} updated", i)));
    gathered_.push_back(device.make_event(fmt::format("bucket {} gathered", i)));
    for (std::size_t slot = 0; slot < begin_.size(); ++slot) {
      ready_[slot].push_back(device.make_mark(fmt::format("bucket {} updated, slot {}", i, slot)));
      needed_[slot].push_back(device.make_mark(fmt::format("bucket {} needed, slot {}", i, slot)));
      begin_[slot].push_back(device.make_mark(fmt::format("bucket {} gather begins, slot {}", i, slot)));
      end_[slot].push_back(device.make_mark(fmt::format("bucket {} gather ends, slot {}", i, slot)));
    }
  }
}

void WeightGathers::use_slot(int slot) {
  STRAKE_CHECK(slot >= 0 && slot < GradBuckets::kSlots, "no such slot");
  slot_ = static_cast<std::size_t>(slot);
}

void WeightGathers::start(std::size_t bucket) {
  const Bucket& range = buckets_[bucket];
  const std::int64_t piece_elems = range.elems() / communicator_.size();
  const Tensor whole = weights_.flat(range.begin_elems, range.elems());
  compute_.mark(ready_[slot_][bucket]);
  compute_.record(updated_[bucket]);
  comm_.wait(updated_[bucket], {"communication waits for updated weights", Hazard::kReadAfterWrite});
  comm_.mark(begin_[slot_][bucket]);
  communicator_.all_gather(comm_, {labels_[bucket], Phase::kComm}, whole,
                           whole.flat(communicator_.rank() * piece_elems, piece_elems));
  comm_.mark(end_[slot_][bucket]);
  comm_.record(gathered_[bucket]);
  pending_[bucket] = true;
  unused_[bucket] = slot_;
}

void WeightGathers::all_started() {
  if (overlap_ == Overlap::kOff) wait_whole();
}

void WeightGathers::needed(ParamId param) {
  const std::size_t bucket = bucket_of_[index_of(param)];
  if (unused_[bucket].has_value()) compute_.mark(needed_[*unused_[bucket]][bucket]);
  unused_[bucket].reset();
  if (!pending_[bucket]) return;
  if (before_) before_();
  wait(bucket);
  if (behind_) behind_();
}

void WeightGathers::wait_whole() {
  for (std::size_t i = buckets_.size(); i-- > 0;) {
    if (pending_[i]) wait(i);
  }
}

void WeightGathers::wait(std::size_t bucket) {
  compute_.wait(gathered_[bucket], {"compute waits for gathered weights", Hazard::kReadAfterWrite});
  pending_[bucket] = false;
}

void WeightGathers::around_waits(std::function<void()> before, std::function<void()> behind) {
  before_ = std::move(before);
  behind_ = std::move(behind);
}

std::vector<WeightGathers::Timing> WeightGathers::timings(int slot) const {
  STRAKE_CHECK(slot >= 0 && slot < GradBuckets::kSlots, "no such slot");
  const auto index = static_cast<std::size_t>(slot);
  std::vector<Timing> timings;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    timings.push_back({&ready_[index][i], &begin_[index][i], &end_[index][i], &needed_[index][i]});
  }
  return timings;
}

}  // namespace strake::comm
