// WeightGathers: brings together, bucket by bucket, weights that ranks have updated in pieces, while the next forward
// already runs.
//
// When this rank's piece of a bucket is updated on the compute stream, the communication stream is made to wait for it
// there and the bucket's all-gather is enqueued, in place. Whoever enqueues a reader of a weight asks for it first; the
// compute stream then waits for that bucket, once. With Overlap::kOff it waits for every bucket as soon as the last one
// is enqueued. The result is the same.
// Threads: the training thread. Errors: as Communicator.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comm/bucket_plan.h"
#include "comm/communicator.h"
#include "comm/grad_buckets.h"

namespace strake::comm {

class WeightGathers {
 public:
  // `weights`: flat, laid out as planned; each bucket is communicator.size() equal pieces. All outlive this object.
  WeightGathers(Device& device, const BucketPlan& plan, const ParamLayout& layout, Tensor weights,
                Communicator& communicator, Stream& compute, Stream& comm_stream, Overlap overlap);

  // This rank's piece of `bucket` is final once what is enqueued on compute has run.
  void start(std::size_t bucket);
  // Every bucket was started.
  void all_started();
  // What is enqueued on compute behind this call may read `param`.
  void needed(ParamId param);
  // And all weights.
  void wait_whole();
  // Called around each wait that needed() enqueues.
  void around_waits(std::function<void()> before, std::function<void()> behind);

  // Which ring slot the marks of the next gathers use.
  void use_slot(int slot);
  // Of bucket i: marks on compute behind the update of this rank's piece, and where it is first needed, waited for or
  // not; marks on the communication stream, begin behind the wait for its piece, end behind the all-gather. In the
  // order of the plan.
  struct Timing {
    const Mark* ready;
    const Mark* begin;
    const Mark* end;
    const Mark* needed;
  };
  std::vector<Timing> timings(int slot) const;

 private:
  void wait(std::size_t bucket);

  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // by parameter
  std::vector<std::string> labels_;
  Tensor weights_;
  Communicator& communicator_;
  Stream& compute_;
  Stream& comm_;
  Overlap overlap_;
  std::size_t slot_ = 0;
  std::vector<Event> updated_;                      // per bucket, recorded on compute
  std::vector<Event> gathered_;                     // per bucket, recorded on comm
  std::vector<bool> pending_;                       // per bucket: compute has not waited for its last gather
  std::vector<std::optional<std::size_t>> unused_;  // per bucket: slot of its last gather, until that is needed
  std::vector<std::vector<Mark>> ready_, needed_;   // [slot][bucket], on compute
  std::vector<std::vector<Mark>> begin_, end_;      // the same, on comm
  std::function<void()> before_, behind_;
};

}  // namespace strake::comm
