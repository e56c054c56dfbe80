// SplitRows: the embedding's part of a split token table's gradient (models/split_embedding.h), on its way to all
// ranks.
//
//   compute: ids |  backward of the last micro-batch ...  | rows |           wait "reduced" | add rows to the table
//   comm:        wait | gather ids | head's part | buckets ...  wait | gather rows | record "reduced"
//
// Every rank keeps the rows of its step, micro-batch by micro-batch, as backward makes them, and gets those of all
// others. Then each adds all of them to the head's part, which is summed by then, in the order of ranks, micro-batches
// and places: one kernel, whose order is fixed. How many rows there are is known before step 1.
// Threads: the training thread. Errors: as comm::Communicator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "comm/grad_buckets.h"
#include "runtime/device/device.h"

namespace strake::models {

class SplitRows {
 public:
  // `rows`: of this rank, in a step. `communicator`, its stream and the arena outlive this object.
  SplitRows(Device& device, Arena& memory, std::int64_t rows, std::int64_t channels, DType dtype,
            comm::Communicator& communicator, Stream& compute, Stream& comm_stream);

  // Of the next micro-batch, which has them on compute: ids [B, T], rows [B*T, channels].
  void put_ids(const Tensor& ids);
  void put_rows(const Tensor& rows);
  // Behind the ids of the last micro-batch.
  void gather_ids();
  // Behind the rows of the last micro-batch; ends the step. Ids are gathered too, where they were not.
  void gather_rows();
  // table [V, channels] += all rows. REQUIRES: compute waits for the communication stream behind gather_rows().
  void add_to(const Tensor& table) const;

  std::int64_t bytes() const;  // that all ranks' rows and ids have
  void use_slot(int slot) { slot_ = static_cast<std::size_t>(slot); }
  // Of the gather of rows in ring slot `slot`, as GradBuckets has them of a bucket.
  comm::GradBuckets::Timing timing(int slot) const;

 private:
  Tensor own(const Tensor& all) const;  // this rank's part

  comm::Communicator& communicator_;
  Stream& compute_;
  Stream& comm_;
  std::int64_t rows_, channels_;
  Tensor ids_, values_;  // of all ranks, one behind the other: [ranks * rows], [ranks * rows * channels]
  std::int64_t next_id_ = 0, next_row_ = 0;
  bool ids_gathered_ = false;
  Event ids_final_, rows_final_;
  std::size_t slot_ = 0;
  std::vector<Mark> ready_, begin_, end_;  // by slot
};

}  // namespace strake::models
