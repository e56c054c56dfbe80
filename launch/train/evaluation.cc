#include "launch/train/evaluation.h"

namespace strake::launch {

void Evaluation::enqueue(const models::Transformer& model, const models::Pass& pass) {
  const double per_token = 1.0 / static_cast<double>(tokens_);
  loader_->seek(0);
  for (std::int64_t i = 0; i < batches_; ++i) {
    const data::StepBatch batch = loader_->next();
    const data::MicroBatch& micro = batch.micro_batches.front();
    pass.compute.wait(*batch.ready, {"evaluation waits for the batch", Hazard::kReadAfterWrite});
    model.forward(pass, micro.tokens);
    model.loss(pass, micro.targets, total_, per_token, i > 0);
    loader_->release(batch, pass.compute);
  }
}

}  // namespace strake::launch
