#include "launch/train/initial_weights.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "checkpoint/agreement.h"
#include "checkpoint/manifest.h"
#include "launch/run/checkpoint_model.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

// Errors that a reader of checkpoints throws, with the key that led to them.
template <typename Work>
auto naming_the_key(Work work) {
  constexpr std::string_view kKey = "train.init_from: ";
  try {
    return work();
  } catch (const IoError& error) {
    throw IoError(fmt::format("{}{}", kKey, error.what()), error.path, error.error_number);
  } catch (const CorruptError& error) {
    throw CorruptError(fmt::format("{}{}", kKey, error.what()), error.path, error.offset_bytes);
  } catch (const IncompatibleCheckpointError& error) {
    throw IncompatibleCheckpointError(fmt::format("{}{}", kKey, error.what()));
  } catch (const NoCheckpointError& error) {
    throw NoCheckpointError(fmt::format("{}{}", kKey, error.what()));
  } catch (const DataError& error) {
    throw DataError(fmt::format("{}{}", kKey, error.what()));
  }
}

}  // namespace

InitialWeights::InitialWeights(Files& files, const std::string& path, const models::TransformerShape& model,
                               data::DataCursor data)
    : model_(model), data_(std::move(data)), source_(naming_the_key([&] { return CheckpointSource(files, path); })) {
  first_ = next();
}

checkpoint::FoundCheckpoint InitialWeights::next() {
  if (first_.has_value()) return *std::exchange(first_, std::nullopt);
  return naming_the_key([&] {
    checkpoint::FoundCheckpoint found = source_.next();
    models::TransformerShape wanted = model_;
    // No weight depends on how many tokens are trained on at once, unless positions are learned.
    if (wanted.positions == models::Positions::kRotary) wanted.sequence = model_of(found).sequence;
    require_model(found, wanted, "start from other weights");
    data::require_same_tokenizer(data::tokenizer_from_json(found.manifest.meta.tokenizer, found.path.string()), data_);
    return found;
  });
}

WeightsOrigin InitialWeights::load(Files& files, comm::Control& control, InitialWeights* found, Trainer& trainer) {
  STRAKE_CHECK(control.rank() != 0 || found != nullptr, "rank 0 finds the weights");
  while (true) {
    // One rank judges and reads the manifest, so that all take the same bytes.
    const Json told = Json::parse(checkpoint::agree_on_root(control, [&] {
      const checkpoint::FoundCheckpoint newest = found->next();
      return Json{newest.path.string(), std::filesystem::absolute(newest.path).lexically_normal().string(),
                  checkpoint::serialize(newest.manifest)}
          .dump();
    }));
    checkpoint::FoundCheckpoint newest{std::filesystem::path(told.at(0).get<std::string>()), {}};
    newest.manifest = checkpoint::parse_manifest(told.at(2).get<std::string>(), newest.path.string());
    try {
      checkpoint::agree(control, [&] {
        naming_the_key([&] { trainer.load_weights(files, newest); });
        return std::string();
      });
      return {told.at(1), newest.manifest.meta.step};
    } catch (const CorruptError& error) {
      checkpoint::agree_on_root(control, [&] {
        naming_the_key([&] { found->source_.damaged(error); });
        return std::string();
      });
    }
  }
}

}  // namespace strake::launch
