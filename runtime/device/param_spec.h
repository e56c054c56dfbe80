// The one table that says what a parameter is. Models fill it; optimizer, gradient buckets,
// checkpoints, import/export and tests read it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
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

// A set of mesh axes.
class AxisSet {
 public:
  constexpr AxisSet() = default;
  constexpr AxisSet(std::initializer_list<MeshAxis> axes) {
    for (const MeshAxis axis : axes) bits_ |= bit(axis);
  }
  constexpr bool contains(MeshAxis axis) const { return (bits_ & bit(axis)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool operator==(const AxisSet&) const = default;

 private:
  static constexpr std::uint8_t bit(MeshAxis axis) {
    return static_cast<std::uint8_t>(1u << static_cast<unsigned>(axis));
  }
  std::uint8_t bits_ = 0;
};

// How a parameter starts. Values are f(seed, logical name, global element index) only: the same for
// every world size, sharding and layout.
struct InitialValue {
  enum class Kind : std::uint8_t { kZeros, kOnes, kNormal } kind = Kind::kZeros;
  double standard_deviation = 0;
  // Where elements are stored in another order than the one that values are counted in, at most one of these.
  bool transposed = false;  // stored [in, out], counted as [out, in]
  // Rows (of axis 0) are stored by group: of group 0 its rows of part 0, of part 1, ..., then of group 1. They are
  // counted by part. {heads / kv_heads * head_size, head_size, head_size} is query, key, value by kv head, {1, 1} gate
  // and up in turn; empty: as stored.
  std::vector<std::int64_t> group_rows = {};
};

struct ParamSpec {
  std::string name;                        // logical name, unique: "h.3.attn.qkv.weight"
  std::vector<std::int64_t> global_shape;  // cut along its first axis only, so every shard is a flat range
  AxisSet cut_over = {};                   // mesh axes over which ranks hold parts of it
  AxisSet summed_over{MeshAxis::kData, MeshAxis::kExpert};  // over which its gradient is summed
  bool final_at_end = false;  // the gradient is final only when backward ends (a tied table)
  bool weight_decay = false;
  InitialValue initial = {};

  std::int64_t elems() const;
};

// Parameters whose gradients are reduced alike: a flat range of the layout.
struct Section {
  ParamId first, last;
  std::int64_t begin_elems, end_elems;  // alignment gaps included
  AxisSet summed_over;
  bool final_at_end;
};

// A part of one parameter: what a rank updates, keeps in checkpoints and exports of it.
struct OwnedRange {
  ParamId param;
  std::int64_t begin_elems;  // of the row-major parameter
  std::int64_t size_elems;
  std::int64_t flat_begin_elems;  // where it lies in the flat arenas
};

// Where each parameter lies in the flat arenas (weights, gradients, moments), all with this one
// layout: parameter i occupies elements [offset_elems[i], offset_elems[i] + elems), in the order in which
// backward finishes their gradients, each start aligned to 512 elements: a block of the
// gradient norm (kernels/optimizer.h), and 1 KiB of the narrowest dtype.
// A model adds its parameters in that order, and refers to them by what add() returned.
class ParamLayout {
 public:
  static constexpr std::int64_t kAlignmentElems = 512;

  ParamLayout() = default;
  // `specs` in the order in which backward makes gradients final.
  explicit ParamLayout(std::vector<ParamSpec> specs);

  // The next parameter whose gradient becomes final.
  ParamId add(ParamSpec spec);

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

  // In layout order, together the whole layout. A change of how gradients are reduced, or of when they are final,
  // begins a new one.
  std::vector<Section> sections() const;
  // The parts of parameters that lie in a flat range, in layout order.
  std::vector<OwnedRange> ranges(std::int64_t begin_elems, std::int64_t end_elems) const;
  // Of a rank that holds all of every parameter.
  std::vector<OwnedRange> owned() const { return ranges(0, total_elems()); }

  // Moves parameters apart so that the flat range up to and with each of `ends`, from the end of the one before, is a
  // multiple of `multiple_elems`. REQUIRES: `ends` ascend, the last parameter is the last of them; nothing was reserved
  // by this layout yet.
  void pad_behind(std::span<const ParamId> ends, std::int64_t multiple_elems);

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
