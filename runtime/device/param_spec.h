// The one table that says what a parameter is. Models fill it; optimizer, gradient buckets,
// checkpoints, import/export and tests read it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/device/tensor.h"

namespace strake {

enum class ParamId : std::int32_t {};
constexpr std::size_t index_of(ParamId id) { return static_cast<std::size_t>(id); }

// The axes of the rank mesh. Ranks are laid out with data outermost, expert innermost.
enum class MeshAxis : std::uint8_t { kData, kTensor, kExpert };
inline constexpr int kMeshAxes = 3;

struct Mesh {
  std::array<int, kMeshAxes> sizes{1, 1, 1};  // product = world size
  int world_size() const { return sizes[0] * sizes[1] * sizes[2]; }
  int size(MeshAxis axis) const { return sizes[static_cast<std::size_t>(axis)]; }
  // Position of `rank` along `axis`.
  int coordinate(int rank, MeshAxis axis) const;
};

// How a parameter starts. Values are f(seed, logical name, global element index) only: the same for
// every world size, sharding and layout.
struct InitialValue {
  enum class Kind : std::uint8_t { kZeros, kOnes, kNormal } kind = Kind::kZeros;
  double standard_deviation = 0;
};

struct ParamSpec {
  static constexpr int kReplicated = -1;

  std::string name;  // logical name, unique: "h.3.attn.qkv.weight"
  std::vector<std::int64_t> global_shape;
  std::array<int, kMeshAxes> sharded_axis{kReplicated, kReplicated,
                                          kReplicated};          // tensor axis split over each mesh axis
  std::array<bool, kMeshAxes> reduced_over{true, false, false};  // gradient is summed over these mesh axes
  bool weight_decay = false;
  InitialValue initial;

  std::int64_t elems() const;
};

// Where each parameter lies in the flat arenas (weights, gradients, moments), all with this one
// layout: parameter i occupies elements [offset_elems[i], offset_elems[i] + elems), in the order in which
// backward finishes their gradients, each start aligned to 128 elements (256 bytes of the narrowest dtype).
class ParamLayout {
 public:
  static constexpr std::int64_t kAlignmentElems = 128;

  // `specs` in the order in which backward makes gradients final.
  explicit ParamLayout(std::vector<ParamSpec> specs);

  std::size_t size() const { return specs_.size(); }
  const ParamSpec& spec(ParamId id) const { return specs_[index_of(id)]; }
  const std::vector<ParamSpec>& specs() const { return specs_; }
  std::int64_t offset_elems(ParamId id) const { return offsets_elems_[index_of(id)]; }
  // Of one flat arena, alignment gaps included.
  std::int64_t total_elems() const { return total_elems_; }
  // Trainable elements, gaps not included.
  std::int64_t param_elems() const;
  // The view of parameter `id` in a flat tensor laid out like this.
  Tensor view(const Tensor& flat, ParamId id) const;

 private:
  std::vector<ParamSpec> specs_;
  std::vector<std::int64_t> offsets_elems_;
  std::int64_t total_elems_ = 0;
};

// Named views of a rank's state, all that checkpoint/ sees of a model. A logical tensor may be held
// by every rank (data parallel) or in part; `global_shape` is the whole.
struct TensorTable {
  struct Entry {
    std::string name;  // "param/h.3.attn.qkv.weight", "adam_m/h.3.attn.qkv.weight"
    std::vector<std::int64_t> global_shape;
    Tensor view;                   // contiguous, device memory; holds [begin_elems, begin_elems + view.elems())
    std::int64_t begin_elems = 0;  // of the row-major global tensor
    bool replicated = true;        // every rank of the data axis holds the same range
  };
  std::vector<Entry> entries;
};

}  // namespace strake
