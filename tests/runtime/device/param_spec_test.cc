#include "runtime/device/param_spec.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

namespace strake::test {
namespace {

ParamSpec spec(std::string name, std::vector<std::int64_t> shape) {
  ParamSpec out;
  out.name = std::move(name);
  out.global_shape = std::move(shape);
  return out;
}

TEST(Mesh, DataIsOutermostAndExpertInnermost) {
  const Mesh mesh{.sizes = {2, 3, 4}};
  EXPECT_EQ(mesh.world_size(), 24);
  std::set<std::tuple<int, int, int>> seen;
  for (int rank = 0; rank < mesh.world_size(); ++rank) {
    const int data = mesh.coordinate(rank, MeshAxis::kData), tensor = mesh.coordinate(rank, MeshAxis::kTensor),
              expert = mesh.coordinate(rank, MeshAxis::kExpert);
    EXPECT_EQ((data * 3 + tensor) * 4 + expert, rank);
    EXPECT_LT(data, 2);
    EXPECT_LT(tensor, 3);
    EXPECT_LT(expert, 4);
    seen.emplace(data, tensor, expert);
  }
  EXPECT_EQ(seen.size(), 24u);
}

TEST(Mesh, DataParallelRankIsItsCoordinate) {
  const Mesh mesh{.sizes = {5, 1, 1}};
  for (int rank = 0; rank < 5; ++rank) {
    EXPECT_EQ(mesh.coordinate(rank, MeshAxis::kData), rank);
    EXPECT_EQ(mesh.coordinate(rank, MeshAxis::kTensor), 0);
    EXPECT_EQ(mesh.coordinate(rank, MeshAxis::kExpert), 0);
  }
  EXPECT_EQ(Mesh().world_size(), 1);
}

TEST(ParamLayout, EveryParameterStartsAligned) {
  const ParamLayout layout(
      {spec("head", {3, 200}), spec("bias", {512}), spec("norm", {1}), spec("embedding", {65, 8})});
  ASSERT_EQ(layout.size(), 4u);
  EXPECT_EQ(layout.offset_elems(ParamId{0}), 0);
  EXPECT_EQ(layout.offset_elems(ParamId{1}), 1024);  // 600 elements and a gap
  EXPECT_EQ(layout.offset_elems(ParamId{2}), 1536);
  EXPECT_EQ(layout.offset_elems(ParamId{3}), 2048);
  EXPECT_EQ(layout.total_elems(), 3072);
  EXPECT_EQ(layout.param_elems(), 600 + 512 + 1 + 520);
  EXPECT_EQ(layout.spec(ParamId{2}).name, "norm");
  EXPECT_EQ(layout.spec(ParamId{3}).elems(), 520);
  // The narrowest gradient dtype still gives aligned addresses.
  EXPECT_EQ(ParamLayout::kAlignmentElems * static_cast<std::int64_t>(size_bytes(DType::kBF16)) %
                static_cast<std::int64_t>(Arena::kAlignmentBytes),
            0);
}

TEST(ParamLayout, ViewsAreTheParametersOfAFlatTensor) {
  const ParamLayout layout({spec("a", {3, 50}), spec("b", {64, 2})});
  Arena arena("gradients", MemoryKind::kDevice);
  arena.reserve(256);
  const Tensor flat = Tensor::reserve(arena, DType::kBF16, {layout.total_elems()});
  const Tensor view = layout.view(flat, ParamId{1});
  EXPECT_EQ(view.describe(), "bf16[64, 2]");
  EXPECT_EQ(view.offset_bytes(), 256u + 512 * 2);
  EXPECT_TRUE(view.contiguous());
  EXPECT_EQ(&view.arena(), &arena);
}

TEST(ParamLayout, ViewOfAnotherLayoutIsAProgrammerError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const ParamLayout layout({spec("a", {3, 50})});
  Arena arena("gradients", MemoryKind::kDevice);
  const Tensor flat = Tensor::reserve(arena, DType::kF32, {150});
  EXPECT_DEATH(layout.view(flat, ParamId{0}), "f32\\[150\\] has another layout");
}

TEST(ParamLayout, AddSaysWhichParameterItIs) {
  ParamLayout layout;
  EXPECT_EQ(layout.add(spec("a", {3, 50})), ParamId{0});
  EXPECT_EQ(layout.add(spec("b", {64})), ParamId{1});
  EXPECT_EQ(layout.offset_elems(ParamId{1}), 512);
  EXPECT_EQ(layout.total_elems(), 1024);
}

TEST(ParamLayout, SectionsEndWhereGradientsAreReducedOtherwise) {
  ParamLayout layout;
  layout.add(spec("a", {100}));
  layout.add(spec("b", {900}));
  ParamSpec expert = spec("expert", {128});
  expert.summed_over = {MeshAxis::kData};
  layout.add(expert);
  ParamSpec table = spec("table", {5});
  table.final_at_end = true;
  layout.add(table);
  const std::vector<Section> sections = layout.sections();
  ASSERT_EQ(sections.size(), 3u);
  EXPECT_EQ(std::tuple(sections[0].first, sections[0].last), std::tuple(ParamId{0}, ParamId{1}));
  EXPECT_EQ(std::tuple(sections[0].begin_elems, sections[0].end_elems), std::tuple(0, 512 + 1024));
  EXPECT_EQ(sections[0].summed_over, (AxisSet{MeshAxis::kExpert, MeshAxis::kData}));
  EXPECT_EQ(std::tuple(sections[1].first, sections[1].last), std::tuple(ParamId{2}, ParamId{2}));
  EXPECT_FALSE(sections[1].summed_over.contains(MeshAxis::kExpert));
  EXPECT_FALSE(sections[1].final_at_end);
  EXPECT_TRUE(sections[2].final_at_end);
  EXPECT_EQ(std::tuple(sections[2].begin_elems, sections[2].end_elems), std::tuple(2048, layout.total_elems()));
}

TEST(ParamLayout, OwnedRangesAreTheParameters) {
  const ParamLayout layout({spec("a", {3, 50}), spec("b", {64, 2})});
  const std::vector<OwnedRange> owned = layout.owned();
  ASSERT_EQ(owned.size(), 2u);
  EXPECT_EQ(std::tuple(owned[1].param, owned[1].begin_elems, owned[1].size_elems, owned[1].flat_begin_elems),
            std::tuple(ParamId{1}, 0, 128, 512));
}

TEST(ParamLayout, RangesArePartsOfParameters) {
  const ParamLayout layout({spec("a", {3, 50}), spec("b", {1000}), spec("c", {7})});  // at 0, 512 and 1536
  const std::vector<OwnedRange> ranges = layout.ranges(1024, 1540);
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(std::tuple(ranges[0].param, ranges[0].begin_elems, ranges[0].size_elems, ranges[0].flat_begin_elems),
            std::tuple(ParamId{1}, 512, 488, 1024));
  EXPECT_EQ(std::tuple(ranges[1].param, ranges[1].begin_elems, ranges[1].size_elems, ranges[1].flat_begin_elems),
            std::tuple(ParamId{2}, 0, 4, 1536));
  EXPECT_TRUE(layout.ranges(200, 512).empty());  // a gap
}

TEST(ParamLayout, PaddingMovesWhatComesBehind) {
  ParamLayout layout({spec("a", {3, 50}), spec("b", {1000}), spec("c", {7})});
  const ParamId ends[] = {ParamId{1}, ParamId{2}};
  layout.pad_behind(ends, 2048);
  EXPECT_EQ(layout.offset_elems(ParamId{1}), 512);
  EXPECT_EQ(layout.offset_elems(ParamId{2}), 2048);
  EXPECT_EQ(layout.total_elems(), 4096);
  EXPECT_EQ(layout.param_elems(), 150 + 1000 + 7);
}

TEST(ParamLayout, EmptyLayoutHasNoElements) {
  const ParamLayout layout;
  EXPECT_EQ(layout.total_elems(), 0);
  EXPECT_EQ(layout.param_elems(), 0);
}

}  // namespace
}  // namespace strake::test
