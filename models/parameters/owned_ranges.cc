#include "models/parameters/owned_ranges.h"

#include <string>

namespace strake::models {

void append_ranges(TensorTable& table, std::string_view prefix, const ParamLayout& layout,
                   std::span<const OwnedRange> ranges, const Tensor& flat, bool replicated) {
  for (const OwnedRange& range : ranges) {
    const ParamSpec& spec = layout.spec(range.param);
    table.entries.push_back({.name = std::string(prefix) + spec.name,
                             .global_shape = spec.global_shape,
                             .view = flat.flat(range.flat_begin_elems, range.size_elems),
                             .begin_elems = range.begin_elems,
                             .replicated = replicated});
  }
}

void append_ranges(TensorTable& table, std::string_view prefix, const ParamLayout& layout, const Tensor& flat) {
  append_ranges(table, prefix, layout, layout.owned(), flat, true);
}

}  // namespace strake::models
