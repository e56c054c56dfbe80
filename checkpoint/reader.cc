#include "checkpoint/reader.h"

#include "checkpoint/compatibility.h"
#include "checkpoint/shard_file.h"
#include "checkpoint/shard_plan.h"
#include "runtime/base/error.h"

namespace strake::checkpoint {

std::optional<FoundCheckpoint> find_newest(Files& files, const std::filesystem::path& directory) {
  for (const std::int64_t step : committed_steps(files, directory)) {
    FoundCheckpoint found{directory / step_name(step), {}};
    try {
      found.manifest = read_manifest(files, found.path);
      check_sizes(files, found.path, found.manifest);
      return found;
    } catch (const CorruptError&) {  // the run itself sets it aside at its next start
    }
  }
  return std::nullopt;
}

void read_tensors(Files& files, const FoundCheckpoint& found, const TensorTable& table,
                  const std::string& expected_model, Stream& stream, const Tensor& staging) {
  check_compatible(found.manifest, held_ranges(table), expected_model, ExtraTensors::kIgnore, found.path.string());
  load_tensors(files, found.path, found.manifest, table, stream, staging);
}

}  // namespace strake::checkpoint
