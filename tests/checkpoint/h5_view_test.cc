// A view of a checkpoint: what h5py finds in it is every tensor, whole, in its shape.
#include "checkpoint/h5_view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/scratch_folder.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kViewedStep = 10;

// Every range of small arrays, element by element.
TEST(BoxesOfRange, CoverItOnceInFlatOrder) {
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{7}, {3, 4}, {1, 5}, {5, 1}, {2, 3, 4}, {3, 1, 2, 2}}) {
    std::int64_t elems = 1;
    for (const std::int64_t extent : shape) elems *= extent;
    for (std::int64_t begin = 0; begin < elems; ++begin) {
      for (std::int64_t end = begin + 1; end <= elems; ++end) {
        SCOPED_TRACE(fmt::format("{} [{}, {})", shape, begin, end));
        const std::vector<Box> boxes = boxes_of_range(shape, begin, end);
        EXPECT_LE(boxes.size(), 2 * shape.size() - 1);
        std::int64_t next = begin;
        for (const Box& box : boxes) {
          ASSERT_EQ(box.begin_elems, next);
          std::int64_t first = 0, count = 1;
          for (std::size_t axis = 0; axis < shape.size(); ++axis) {
            ASSERT_GE(box.start[axis], 0);
            ASSERT_LE(box.start[axis] + box.extent[axis], shape[axis]);
            first = first * shape[axis] + box.start[axis];
            count *= box.extent[axis];
          }
          ASSERT_EQ(first, next);
          // One range: behind the first axis that has more than one index, all are whole.
          bool whole = false;
          for (std::size_t axis = 0; axis < shape.size(); ++axis) {
            if (whole) {
              ASSERT_EQ(box.extent[axis], shape[axis]);
            }
            whole = whole || box.extent[axis] > 1;
          }
          next += count;
        }
        ASSERT_EQ(next, end);
      }
    }
  }
}

// Of more axes than a model's.
std::vector<test::SyntheticTensor> viewed_tensors() {
  std::vector<test::SyntheticTensor> tensors = test::synthetic_tensors();
  tensors.push_back({"deep/cube", DType::kI32, {11, 7, 5}});
  tensors.push_back({"deep/four", DType::kF32, {3, 5, 2, 7}, true});
  return tensors;
}

void save_viewed(Files& files, int ranks, const fs::path& folder) {
  ASSERT_TRUE(test::all_done(test::run_ranks(ranks, [&](int rank, comm::Control& control) {
    test::SyntheticRank state(rank, ranks, viewed_tensors());
    auto checkpointer = state.make_checkpointer(files, control, test::options_in(folder));
    state.save(*checkpointer, kViewedStep);
  })));
}

void write_view(Files& files, const Manifest& manifest, const fs::path& folder, const fs::path& path) {
  const H5Image image = lay_out_h5_view(manifest, folder, {{"param/wte", {"in,out", {2, 1}}}});
  std::string bytes(image.size_bytes, '\0');
  image.metadata.read(0, std::as_writable_bytes(std::span(bytes)));
  write_file_durably(files, path, bytes);
}

// What a program in Python prints; empty and a failure if it ends otherwise.
std::string python_says(Files& files, const fs::path& folder, const std::string& script) {
  write_file_durably(files, folder / "look.py", script);
  const int status = std::system(fmt::format("/usr/bin/python3 {0}/look.py >{0}/out 2>&1", folder.string()).c_str());
  std::string said = read_file(files, folder / "out", 1 << 16);
  EXPECT_EQ(status, 0) << said;
  return status == 0 ? said : "";
}

// In names of files HDF5 reads % as the beginning of a number.
constexpr const char* kViewedFolder = "ck%pt %b";

TEST(H5View, ShowsEveryTensorWholeInItsShape) {
  PosixFiles files;
  for (const int ranks : {1, 2, 3}) {
    SCOPED_TRACE(fmt::format("{} ranks", ranks));
    const test::ScratchFolder scratch(test::ScratchFolder::Where::kMemory);
    save_viewed(files, ranks, scratch.path() / kViewedFolder);
    const Manifest manifest = read_manifest(files, scratch.path() / kViewedFolder / step_name(kViewedStep));
    write_view(files, manifest, fs::path(kViewedFolder) / step_name(kViewedStep), scratch.path() / "view.h5");
    // The view finds its files from where it lies, wherever that is and whoever opens it from where.
    fs::create_directory(scratch.path() / "moved");
    fs::rename(scratch.path() / "view.h5", scratch.path() / "moved" / "view.h5");
    fs::rename(scratch.path() / kViewedFolder, scratch.path() / "moved" / kViewedFolder);

    std::string script = fmt::format("import h5py, os\nos.chdir('/')\nview = h5py.File('{}/moved/view.h5', 'r')\n",
                                     scratch.path().string());
    int looked_at = 0;
    for (const test::SyntheticTensor& tensor : viewed_tensors()) {
      std::size_t size = size_bytes(tensor.dtype);
      for (const std::int64_t extent : tensor.shape) size *= static_cast<std::size_t>(extent);
      std::string bytes(size, '\0');
      for (std::size_t i = 0; i < size; ++i)
        bytes[i] = static_cast<char>(test::state_byte(std::hash<std::string>()(tensor.name), kViewedStep, i));
      const std::string expected = fmt::format("{}/expected-{}", scratch.path().string(), ++looked_at);
      write_file_durably(files, expected, bytes);
      script += fmt::format("d = view['{0}']\nassert d.is_virtual and d.shape == ({1},), (d.shape, '{0}')\n",
                            tensor.name, fmt::join(tensor.shape, ","));
      // numpy has no bf16: h5py converts it.
      if (tensor.dtype == DType::kBF16) {
        script += fmt::format(
            "import numpy\nbits = numpy.fromfile('{0}', '<u2').astype('<u4') << 16\n"
            "assert numpy.array_equal(d[()].astype('<f4').ravel(), bits.view('<f4'), equal_nan=True), '{1}'\n",
            expected, tensor.name);
      } else {
        script += fmt::format("assert d[()].tobytes() == open('{}', 'rb').read(), '{}'\n", expected, tensor.name);
      }
    }
    script +=
        "w = view['param/wte']\nassert w.attrs['orientation'] == 'in,out' and list(w.attrs['group_rows']) == [2, 1]\n";
    script += fmt::format("assert view.attrs['step'] == {} and view.attrs['world_size'] == {}\n", kViewedStep, ranks);
    script += fmt::format("print('looked at {}')\n", looked_at);
    EXPECT_EQ(python_says(files, scratch.path(), script), fmt::format("looked at {}\n", looked_at));
  }
}

// HDF5 fills what it does not find: that must not look like weights.
TEST(H5View, OfFilesThatAreGoneThereIsNoNumber) {
  PosixFiles files;
  const test::ScratchFolder scratch(test::ScratchFolder::Where::kMemory);
  save_viewed(files, 2, scratch.path());
  const fs::path folder = scratch.path() / step_name(kViewedStep);
  write_view(files, read_manifest(files, folder), step_name(kViewedStep), scratch.path() / "view.h5");
  files.remove(folder / "rank-0001.h5");
  const std::string script = fmt::format(
      "import h5py, numpy\nview = h5py.File('{}/view.h5', 'r')\n"
      "print(sum(int(numpy.isnan(view[name][()]).all()) for name in ('zero/flat', 'adam_m/wte')),\n"
      "      int(numpy.isnan(view['zero/flat'][-100:]).all()))\n",
      scratch.path().string());
  const std::string said = python_says(files, scratch.path(), script);
  EXPECT_TRUE(said.ends_with(" 1\n")) << said;
}

TEST(H5View, IsAPureFunction) {
  PosixFiles files;
  const test::ScratchFolder scratch(test::ScratchFolder::Where::kMemory);
  save_viewed(files, 2, scratch.path());
  const Manifest manifest = read_manifest(files, scratch.path() / step_name(kViewedStep));
  write_view(files, manifest, "ckpt", scratch.path() / "a");
  write_view(files, manifest, "ckpt", scratch.path() / "b");
  EXPECT_TRUE(read_file(files, scratch.path() / "a", 1 << 26) == read_file(files, scratch.path() / "b", 1 << 26));
}

}  // namespace
}  // namespace strake::checkpoint
