// The lines of Python in checkpoint/format.md, as they stand there, read what the ranks of a run wrote.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "checkpoint/checkpointer.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/scratch_folder.h"

namespace strake::checkpoint {
namespace {

constexpr std::int64_t kStep = 10;

// The whole tensor as it was saved.
std::string expected_bytes(const test::SyntheticTensor& tensor) {
  std::size_t size = size_bytes(tensor.dtype);
  for (const std::int64_t extent : tensor.shape) size *= static_cast<std::size_t>(extent);
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<char>(test::state_byte(std::hash<std::string>()(tensor.name), kStep, i));
  }
  return bytes;
}

TEST(PythonReader, GivesEveryTensorOfAnyNumberOfRanks) {
  PosixFiles files;
  const std::string document = read_file(files, STRAKE_CHECKPOINT_FORMAT, 1 << 20);
  constexpr std::string_view kBegin = "```python\n";
  const std::size_t begin = document.find(kBegin) + kBegin.size();
  const std::string lines = document.substr(begin, document.find("```", begin) - begin);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 5);

  for (const int ranks : {1, 2, 3}) {
    SCOPED_TRACE(fmt::format("{} ranks", ranks));
    const test::ScratchFolder scratch(test::ScratchFolder::Where::kMemory);
    const std::string folder = scratch.path().string();
    ASSERT_TRUE(test::all_done(test::save_steps(files, ranks, test::options_in(folder), {kStep})));
    const Manifest manifest = read_manifest(files, scratch.path() / step_name(kStep));
    std::string script = lines;
    int checked = 0, in_parts = 0;
    for (const test::SyntheticTensor& tensor : test::synthetic_tensors()) {
      in_parts += manifest.find(tensor.name)->shards.size() > 1 ? 1 : 0;
      write_file_durably(files, fmt::format("{}/expected-{}", folder, ++checked), expected_bytes(tensor));
      script += fmt::format("t = tensor('{}/{}', '{}')\nassert t.shape == ({},), t.shape\n", folder, step_name(kStep),
                            tensor.name, fmt::join(tensor.shape, ","));
      // numpy has no bf16: h5py converts it, which h5_file_test.cc looks at.
      if (tensor.dtype == DType::kBF16) continue;
      script += fmt::format("assert t.tobytes() == open('{}/expected-{}', 'rb').read(), '{}'\n", folder, checked,
                            tensor.name);
    }
    EXPECT_EQ(in_parts > 0, ranks > 1) << "no tensor lies in the files of two ranks: this shows nothing";
    script += fmt::format("print('checked {}')\n", checked);
    write_file_durably(files, folder + "/read.py", script);
    EXPECT_EQ(std::system(fmt::format("/usr/bin/python3 {0}/read.py >{0}/out 2>&1", folder).c_str()), 0);
    EXPECT_EQ(read_file(files, folder + "/out", 1 << 16), fmt::format("checked {}\n", checked));
  }
}

}  // namespace
}  // namespace strake::checkpoint
