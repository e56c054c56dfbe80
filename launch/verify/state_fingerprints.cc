#include "launch/verify/state_fingerprints.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "kernels/fingerprint.h"
#include "runtime/base/check.h"
#include "runtime/device/host_memory.h"

namespace strake::launch {
namespace {

constexpr std::size_t kStagingBytes = std::size_t{8} << 20;

std::uint64_t mixed(std::uint64_t word, std::uint64_t index) {
  std::uint64_t z = word + (index + 1) * kernels::kFingerprintStep;
  z = (z ^ (z >> 30)) * kernels::kFingerprintMix1;
  z = (z ^ (z >> 27)) * kernels::kFingerprintMix2;
  return z ^ (z >> 31);
}

template <typename Word>
std::uint64_t sum_of(std::span<const std::byte> bytes, std::uint64_t first_index) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i * sizeof(Word) < bytes.size(); ++i) {
    Word word;
    std::memcpy(&word, bytes.data() + i * sizeof(Word), sizeof(Word));
    sum += mixed(word, first_index + i);
  }
  return sum;
}

class Reader {
 public:
  Reader(Stream& stream, Device& device) : stream_(stream) {
    offset_bytes_ = staging_.reserve(kStagingBytes);
    staging_.allocate(device);
  }

  // Of `view`, which is a tensor's from element `begin_elems` on.
  std::uint64_t fingerprint(const Tensor& view, std::int64_t begin_elems) {
    const std::size_t elem_bytes = size_bytes(view.dtype());
    const auto at_once = static_cast<std::int64_t>(kStagingBytes / elem_bytes);
    const Tensor flat = view.flat(0, view.elems());
    std::uint64_t sum = 0;
    for (std::int64_t done = 0; done < flat.elems(); done += at_once) {
      const std::int64_t now = std::min(at_once, flat.elems() - done);
      const Tensor staged(staging_, offset_bytes_, view.dtype(), {now});
      stream_.copy({"state to be compared"}, staged, flat.flat(done, now));
      stream_.synchronize();
      const auto index = static_cast<std::uint64_t>(begin_elems + done);
      const std::span<const std::byte> bytes = host_bytes(staged);
      sum += elem_bytes == 2   ? sum_of<std::uint16_t>(bytes, index)
             : elem_bytes == 4 ? sum_of<std::uint32_t>(bytes, index)
                               : sum_of<std::uint64_t>(bytes, index);
    }
    return sum;
  }

 private:
  Stream& stream_;
  Arena staging_{"state to be compared", MemoryKind::kHost};
  std::size_t offset_bytes_ = 0;
};

}  // namespace

std::vector<StateFingerprint> fingerprints_of(Trainer& trainer, Device& device) {
  Reader reader(trainer.compute(), device);
  std::vector<StateFingerprint> out;
  // Asked for first: its last gathers are then no longer on their way.
  const Tensor read = trainer.whole_weights();
  const ParamLayout& layout = trainer.parameters().layout();
  for (const OwnedRange& range : layout.owned()) {
    out.push_back({"read/" + layout.spec(range.param).name, true,
                   reader.fingerprint(read.flat(range.flat_begin_elems, range.size_elems), range.begin_elems)});
  }
  for (const TensorTable::Entry& entry : trainer.state_table().entries) {
    out.push_back({entry.name, entry.replicated, reader.fingerprint(entry.view, entry.begin_elems)});
  }
  return out;
}

}  // namespace strake::launch
