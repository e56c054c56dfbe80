// Tensors in one file or in several with an index, as Hugging Face's programs read them.
#include "checkpoint/safetensors_set.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tests/support/memory_files.h"
#include "tests/support/scratch_folder.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;

// 40, 400, 8, 200 and 100 bytes.
const std::vector<SafetensorsSpec> kSpecs = {{"a", DType::kF32, {10}},
                                             {"b", DType::kF32, {10, 10}},
                                             {"c", DType::kBF16, {4}},
                                             {"d", DType::kBF16, {100}},
                                             {"e", DType::kF32, {5, 5}}};

std::vector<std::byte> content_of(const SafetensorsSpec& spec) {
  std::size_t size = size_bytes(spec.dtype);
  for (const std::int64_t extent : spec.shape) size *= static_cast<std::size_t>(extent);
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 7 + spec.name[0]) % 64);
  return bytes;
}

void write_set(Files& files, const fs::path& folder, std::uint64_t max_file_bytes) {
  SafetensorsSetWriter writer(files, folder, kSpecs, max_file_bytes, {{"format", "pt"}});
  for (const SafetensorsSpec& spec : kSpecs) {
    const std::vector<std::byte> bytes = content_of(spec);
    writer.append(std::span(bytes).first(bytes.size() / 2));
    writer.append(std::span(bytes).subspan(bytes.size() / 2));
  }
  writer.finish();
}

std::string problem_of_set(Files& files, const fs::path& folder) {
  const Safetensors set = Safetensors::open(files, folder);
  if (set.entries().size() != kSpecs.size()) return "tensors are missing";
  for (const SafetensorsSpec& spec : kSpecs) {
    std::vector<std::byte> bytes(content_of(spec).size());
    set.read(*set.find(spec.name), 0, bytes);
    if (bytes != content_of(spec) || set.find(spec.name)->shape != spec.shape) return spec.name;
  }
  return "";
}

using FileCounts = std::vector<std::size_t>;

TEST(SafetensorsSet, IsCutWhereAFileWouldBeTooLarge) {
  EXPECT_EQ(cut_into_files(kSpecs, UINT64_MAX), (FileCounts{5}));
  EXPECT_EQ(cut_into_files(kSpecs, 748), (FileCounts{5}));
  EXPECT_EQ(cut_into_files(kSpecs, 747), (FileCounts{4, 1}));
  EXPECT_EQ(cut_into_files(kSpecs, 448), (FileCounts{3, 2}));
  EXPECT_EQ(cut_into_files(kSpecs, 300), (FileCounts{1, 1, 2, 1})) << "one that is larger has a file of its own";
  EXPECT_EQ(cut_into_files(kSpecs, 1), (FileCounts{1, 1, 1, 1, 1}));
}

TEST(SafetensorsSet, IsReadAsItWasWritten) {
  for (const std::uint64_t most : {std::uint64_t{1}, std::uint64_t{300}, std::uint64_t{747}, UINT64_MAX}) {
    test::MemoryFiles files;
    files.make_directories("/out");
    write_set(files, "/out", most);
    EXPECT_EQ(problem_of_set(files, "/out"), "") << most;
  }
}

TEST(SafetensorsSet, ItsIndexIsThatOfHuggingFace) {
  test::MemoryFiles files;
  files.make_directories("/out");
  write_set(files, "/out", 448);
  EXPECT_EQ(files.list("/out"),
            (std::vector<std::string>{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                      "model.safetensors.index.json"}));
  const auto index = nlohmann::json::parse(read_file(files, "/out/model.safetensors.index.json", 1 << 20));
  const std::string first = "model-00001-of-00002.safetensors", second = "model-00002-of-00002.safetensors";
  EXPECT_EQ(index,
            (nlohmann::json{{"metadata", {{"total_size", 748}}},
                            {"weight_map", {{"a", first}, {"b", first}, {"c", first}, {"d", second}, {"e", second}}}}));
}

// Readers prefer model.safetensors to an index, and an index may name files of another set.
TEST(SafetensorsSet, TakesThePlaceOfAnEarlierOne) {
  for (const std::uint64_t before : {std::uint64_t{1}, std::uint64_t{448}, UINT64_MAX}) {
    for (const std::uint64_t after : {std::uint64_t{300}, std::uint64_t{448}, UINT64_MAX}) {
      test::MemoryFiles files;
      files.make_directories("/out");
      files.make_directories("/fresh");
      write_set(files, "/out", before);
      write_file_durably(files, "/out/notes", "mine");
      write_set(files, "/out", after);
      write_set(files, "/fresh", after);
      std::vector<std::string> expected = files.list("/fresh");
      expected.emplace_back("notes");
      EXPECT_EQ(files.list("/out"), expected);
      EXPECT_EQ(problem_of_set(files, "/out"), "");
    }
  }
}

TEST(SafetensorsSet, ThatIsNotFinishedLeavesNothing) {
  test::MemoryFiles files;
  files.make_directories("/out");
  write_set(files, "/out", UINT64_MAX);
  {
    SafetensorsSetWriter writer(files, "/out", kSpecs, 300);
    writer.append(content_of(kSpecs[0]));
  }
  EXPECT_EQ(files.list("/out"), (std::vector<std::string>{"model.safetensors"}));
  EXPECT_EQ(problem_of_set(files, "/out"), "");
}

// Where it is installed: the library of Hugging Face itself.
TEST(SafetensorsSet, IsWhatItsOwnLibraryReads) {
  if (std::system("/usr/bin/python3 -c 'import safetensors.numpy' 2>/dev/null") != 0) {
    GTEST_SKIP() << "Python has no safetensors here: pip install safetensors";
  }
  PosixFiles files;
  const test::ScratchFolder scratch(test::ScratchFolder::Where::kMemory);
  write_set(files, scratch.path(), 448);
  std::string script =
      "import json, sys\nfrom safetensors import safe_open\nindex = json.load(open('model.safetensors.index.json'))\n";
  for (const SafetensorsSpec& spec : kSpecs) {
    if (spec.dtype != DType::kF32) continue;  // numpy has no bf16
    const std::vector<std::byte> bytes = content_of(spec);
    write_file_durably(files, scratch.path() / ("expected-" + spec.name),
                       {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    script += fmt::format(
        "with safe_open(index['weight_map']['{0}'], 'numpy') as file:\n"
        "    assert file.get_tensor('{0}').tobytes() == open('expected-{0}', 'rb').read()\n"
        "    assert file.metadata() == {{'format': 'pt'}}\n",
        spec.name);
  }
  write_file_durably(files, scratch.path() / "read.py", script + "print('read')\n");
  const std::string command = fmt::format("cd {} && /usr/bin/python3 read.py >out 2>&1", scratch.path().string());
  EXPECT_EQ(std::system(command.c_str()), 0) << read_file(files, scratch.path() / "out", 1 << 16);
  EXPECT_EQ(read_file(files, scratch.path() / "out", 1 << 16), "read\n");
}

}  // namespace
}  // namespace strake::checkpoint
