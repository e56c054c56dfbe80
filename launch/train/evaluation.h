// Evaluation: the held-out loss of this rank's part.
// Threads: the training thread.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "data/loader.h"
#include "models/parameters/param_access.h"
#include "models/transformer.h"
#include "runtime/device/device.h"

namespace strake::launch {

class Evaluation {
 public:
  // `batches` on this rank, of `tokens` on all ranks together. total: [1], what sums up the loss.
  Evaluation(std::unique_ptr<data::Loader> loader, std::int64_t batches, std::int64_t tokens, Tensor total)
      : loader_(std::move(loader)), batches_(batches), tokens_(tokens), total_(total) {}

  // Enqueues this rank's part: total() becomes its share of the mean, ranks' shares add up to the held-out loss in nats
  // a token. The host waits for batches.
  void enqueue(const models::Transformer& model, const models::Pass& pass);

  std::int64_t tokens() const { return tokens_; }
  const Tensor& total() const { return total_; }

 private:
  std::unique_ptr<data::Loader> loader_;
  std::int64_t batches_, tokens_;
  Tensor total_;
};

}  // namespace strake::launch
