#include "comm/grad_buckets.h"

#include <fmt/format.h>

#include <utility>

namespace strake::comm {

GradBuckets::GradBuckets(Device& device, BucketPlan plan, const ParamLayout& layout, Tensor gradients,
                         Communicator& communicator, Stream& compute, Stream& comm_stream, Overlap overlap, Wire wire,
                         Reduce reduce)
    : plan_(std::move(plan)),
      gradients_(gradients),
      wire_(std::move(wire)),
      communicator_(communicator),
      compute_(compute),
      comm_(comm_stream),
      overlap_(overlap),
      reduce_(reduce),
      reduced_(device.make_event("gradients reduced")) {
  STRAKE_CHECK(!plan_.buckets.empty() && plan_.buckets.back().end_elems == layout.total_elems() &&
                   index_of(plan_.buckets.back().last) + 1 == layout.size(),
               "the bucket plan belongs to another layout");
  STRAKE_CHECK(gradients_.elems() == layout.total_elems(),
               "gradients " + gradients_.describe() + " do not lie as planned");
  STRAKE_CHECK((wire_.staging.defined() ? wire_.staging : gradients_).dtype() == plan_.wire,
               "gradients " + gradients_.describe() + " travel in another type than planned");
  STRAKE_CHECK(!wire_.staging.defined() || wire_.staging.elems() >= plan_.largest_elems(),
               "the staging buffer " + wire_.staging.describe() + " is smaller than the largest bucket");
  ready_.resize(kSlots);
  begin_.resize(kSlots);
  end_.resize(kSlots);
  for (std::size_t i = 0; i < plan_.buckets.size(); ++i) {
    STRAKE_CHECK(reduce_ == Reduce::kWhole || plan_.buckets[i].elems() % communicator_.size() == 0,
                 "a bucket is no equal pieces");
    labels_.push_back({fmt::format("bucket {} {}", i, reduce_ == Reduce::kWhole ? "all-reduce" : "reduce-scatter"),
                       fmt::format("bucket {} to the wire", i), fmt::format("bucket {} from the wire", i)});
    grads_final_.push_back(device.make_event(fmt::format("bucket {} gradients final", i)));
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      ready_[slot].push_back(device.make_mark(fmt::format("bucket {} ready, slot {}", i, slot)));
      begin_[slot].push_back(device.make_mark(fmt::format("bucket {} begin, slot {}", i, slot)));
      end_[slot].push_back(device.make_mark(fmt::format("bucket {} end, slot {}", i, slot)));
    }
  }
}

void GradBuckets::use_slot(int slot) {
  STRAKE_CHECK(slot >= 0 && slot < kSlots, "no such slot");
  STRAKE_CHECK(next_param_ == 0, "the slot changes between steps only");
  slot_ = static_cast<std::size_t>(slot);
}

void GradBuckets::ready(ParamId param) {
  STRAKE_CHECK(next_param_ <= index_of(plan_.buckets.back().last),
               "all gradients of this step were ready: call reduced()");
  STRAKE_CHECK(index_of(param) == next_param_,
               fmt::format("parameter {} is ready where parameter {} was expected", index_of(param), next_param_));
  ++next_param_;
  if (param != plan_.buckets[final_buckets_].last) return;
  compute_.mark(ready_[slot_][final_buckets_++]);
  if (overlap_ == Overlap::kOn) launch(next_bucket_++);
}

void GradBuckets::start_rest() {
  const std::size_t params = index_of(plan_.buckets.back().last) + 1;
  STRAKE_CHECK(next_param_ == params, fmt::format("only {} of {} gradients are ready", next_param_, params));
  while (next_bucket_ < plan_.buckets.size()) launch(next_bucket_++);
}

const Event& GradBuckets::reduced() {
  start_rest();
  next_param_ = 0;
  final_buckets_ = 0;
  next_bucket_ = 0;
  comm_.record(reduced_);  // the stream is in order: behind every bucket
  return reduced_;
}

std::vector<GradBuckets::Timing> GradBuckets::timings(int slot) const {
  STRAKE_CHECK(slot >= 0 && slot < kSlots, "no such slot");
  const auto index = static_cast<std::size_t>(slot);
  std::vector<Timing> timings;
  for (std::size_t i = 0; i < plan_.buckets.size(); ++i) {
    timings.push_back({&ready_[index][i], &begin_[index][i], &end_[index][i]});
  }
  return timings;
}

void GradBuckets::launch(std::size_t index) {
  const Bucket& bucket = plan_.buckets[index];
  compute_.record(grads_final_[index]);
  comm_.wait(grads_final_[index], {"communication waits for gradients", Hazard::kReadAfterWrite});
  comm_.mark(begin_[slot_][index]);
  const Labels& labels = labels_[index];
  const Tensor gradients = gradients_.flat(bucket.begin_elems, bucket.elems());
  const bool staged = wire_.staging.defined();
  const Tensor travels = staged ? wire_.staging.flat(0, bucket.elems()) : gradients;
  if (staged) wire_.convert(comm_, {labels.to_wire, Phase::kComm}, travels, gradients);
  const bool whole = reduce_ == Reduce::kWhole;
  const std::int64_t summed_elems = whole ? bucket.elems() : bucket.elems() / communicator_.size();
  const std::int64_t summed_begin = whole ? 0 : communicator_.rank() * summed_elems;
  const Tensor summed = travels.flat(summed_begin, summed_elems);
  if (whole) {
    communicator_.all_reduce(comm_, {labels.reduce, Phase::kComm}, summed);
  } else {
    communicator_.reduce_scatter(comm_, {labels.reduce, Phase::kComm}, summed, travels);
  }
  if (staged)
    wire_.convert(comm_, {labels.from_wire, Phase::kComm}, gradients.flat(summed_begin, summed_elems), summed);
  comm_.mark(end_[slot_][index]);
}

}  // namespace strake::comm
