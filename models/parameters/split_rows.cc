#include "models/parameters/split_rows.h"

#include <fmt/format.h>

#include "kernels/embedding.h"

namespace strake::models {

SplitRows::SplitRows(Device& device, Arena& memory, std::int64_t rows, std::int64_t channels, DType dtype,
                     comm::Communicator& communicator, Stream& compute, Stream& comm_stream)
    : communicator_(communicator),
      compute_(compute),
      comm_(comm_stream),
      rows_(rows),
      channels_(channels),
      ids_(Tensor::reserve(memory, DType::kI32, {communicator.size() * rows})),
      values_(Tensor::reserve(memory, dtype, {communicator.size() * rows * channels})),
      ids_final_(device.make_event("token ids final")),
      rows_final_(device.make_event("token rows final")) {
  for (int slot = 0; slot < comm::GradBuckets::kSlots; ++slot) {
    ready_.push_back(device.make_mark(fmt::format("token rows ready, slot {}", slot)));
    begin_.push_back(device.make_mark(fmt::format("token rows begin, slot {}", slot)));
    end_.push_back(device.make_mark(fmt::format("token rows end, slot {}", slot)));
  }
}

void SplitRows::put_ids(const Tensor& ids) {
  STRAKE_CHECK(next_id_ + ids.elems() <= rows_, "more token ids than a step was planned for");
  compute_.copy({"token ids", Phase::kBackward}, own(ids_).flat(next_id_, ids.elems()), ids);
  next_id_ += ids.elems();
}

void SplitRows::put_rows(const Tensor& rows) {
  STRAKE_CHECK(rows.elems() == (next_id_ - next_row_) * channels_, "rows " + rows.describe() + " without their ids");
  compute_.copy({"token rows", Phase::kBackward}, own(values_).flat(next_row_ * channels_, rows.elems()), rows);
  next_row_ = next_id_;
}

void SplitRows::gather_ids() {
  compute_.record(ids_final_);
  comm_.wait(ids_final_, {"communication waits for token ids", Hazard::kReadAfterWrite});
  communicator_.all_gather(comm_, {"token ids all-gather", Phase::kComm}, ids_, own(ids_));
  ids_gathered_ = true;
}

void SplitRows::gather_rows() {
  if (!ids_gathered_) gather_ids();
  compute_.mark(ready_[slot_]);
  compute_.record(rows_final_);
  comm_.wait(rows_final_, {"communication waits for token rows", Hazard::kReadAfterWrite});
  comm_.mark(begin_[slot_]);
  communicator_.all_gather(comm_, {"token rows all-gather", Phase::kComm}, values_, own(values_));
  comm_.mark(end_[slot_]);
  next_id_ = next_row_ = 0;
  ids_gathered_ = false;
}

void SplitRows::add_to(const Tensor& table) const {
  const std::int64_t all = communicator_.size() * rows_;
  kernels::embedding_backward(compute_, {"token rows of all ranks", Phase::kOptimizer},
                              {.dtoken_table = table,
                               .accumulate_token = kernels::Accumulate::kAdd,
                               .dposition_table = Tensor(),
                               .accumulate_position = kernels::Accumulate::kAdd,
                               .dx = values_.reshape({1, all, channels_}),
                               .tokens = ids_.reshape({1, all})});
}

std::int64_t SplitRows::bytes() const {
  return static_cast<std::int64_t>(ids_.extent_bytes() + values_.extent_bytes());
}

comm::GradBuckets::Timing SplitRows::timing(int slot) const {
  const auto index = static_cast<std::size_t>(slot);
  return {&ready_[index], &begin_[index], &end_[index]};
}

Tensor SplitRows::own(const Tensor& all) const {
  const std::int64_t elems = all.elems() / communicator_.size();
  return all.flat(communicator_.rank() * elems, elems);
}

}  // namespace strake::models
