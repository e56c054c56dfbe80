// The lines of Python in checkpoint/format.md, as they stand there, and examples/read_checkpoint.py read what the ranks
// of a run wrote.
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

// examples/read_checkpoint.py has its own CRC32C: what it accepts is what was written, and it accepts nothing else.
TEST(PythonReader, OfTheExamplesReadsAndVerifiesWithNumpyAlone) {
  PosixFiles files;
  for (const int ranks : {1, 3}) {
    SCOPED_TRACE(fmt::format("{} ranks", ranks));
    const test::ScratchFolder scratch(test::ScratchFolder::Where::kMemory);
    const std::string folder = scratch.path().string(), checkpoint = fmt::format("{}/{}", folder, step_name(kStep));
    ASSERT_TRUE(test::all_done(test::save_steps(files, ranks, test::options_in(folder), {kStep})));
    std::string script = fmt::format(
        "import sys\nsys.path.insert(0, '{}')\nfrom read_checkpoint import Checkpoint, Damaged, crc32c\nimport numpy\n"
        "assert crc32c(b'123456789') == 0xE3069283\nc = Checkpoint('{}')\n",
        STRAKE_EXAMPLES, checkpoint);
    int checked = 0;
    for (const test::SyntheticTensor& tensor : test::synthetic_tensors()) {
      const std::string expected = fmt::format("{}/expected-{}", folder, ++checked);
      write_file_durably(files, expected, expected_bytes(tensor));
      script += fmt::format(
          "t = c.tensor('{0}')\nassert t.shape == ({1},), t.shape\ne = open('{2}', 'rb').read()\n"
          "if c.tensors['{0}']['dtype'] == 'bf16':\n    t = (t.view('<u4') >> 16).astype('<u2')\n"
          "assert t.tobytes() == e, '{0}'\n",
          tensor.name, fmt::join(tensor.shape, ","), expected);
    }
    // One bit of a tensor, then one of the manifest.
    script += fmt::format(
        "shard = c.tensors['param/h.0.attn.weight']['shards'][-1]\nfile = c.manifest['files'][shard['file']]\n"
        "for path, at, read in [('{0}/' + file['name'], shard['offset'] + 9, lambda: "
        "c.tensor('param/h.0.attn.weight')),\n"
        "                       ('{0}/manifest.json', 40, lambda: Checkpoint('{0}'))]:\n"
        "    data = bytearray(open(path, 'rb').read())\n    data[at] ^= 4\n    open(path, 'wb').write(data)\n"
        "    try:\n        read()\n        print('not seen')\n    except Damaged as error:\n        print(error)\n",
        checkpoint);
    write_file_durably(files, folder + "/read.py", script);
    EXPECT_EQ(std::system(fmt::format("/usr/bin/python3 -B {0}/read.py >{0}/out 2>&1", folder).c_str()), 0);
    const std::string said = read_file(files, folder + "/out", 1 << 16);
    EXPECT_NE(said.find(".h5: checksum of chunk "), std::string::npos) << said;
    EXPECT_NE(said.find("manifest.json: its checksum does not match"), std::string::npos) << said;
    EXPECT_EQ(said.find("not seen"), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace strake::checkpoint
