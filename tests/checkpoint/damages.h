// Kinds of damage to a committed checkpoint of at least two ranks.
// Threads: one. Errors: those of Files.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "runtime/io/files.h"

namespace strake::test {

struct DamagedCheckpoint {
  Files& files;
  std::filesystem::path folder;
  std::filesystem::path other_step;  // a whole one, of as many ranks

  std::filesystem::path shard(std::size_t rank) const { return folder / fmt::format("rank-{:04d}.h5", rank); }
  // Of a rank, or the manifest.
  template <typename Random>
  std::filesystem::path any_file(Random& random) const {
    const std::vector<std::string> names = files.list(folder);
    return folder / names[random() % names.size()];
  }
  template <typename Random>
  std::size_t any_rank(Random& random) const {
    return random() % (files.list(folder).size() - 1);
  }
  std::string read(const std::filesystem::path& path) const { return read_file(files, path, 1 << 26); }
  void overwrite(const std::filesystem::path& path, const std::string& content) const {
    files.open(path, OpenMode::kReplace)->write(bytes_of(content), 0);
  }
};

struct NamedDamage {
  const char* name;
  void (*apply)(const DamagedCheckpoint&, std::mt19937_64&);
};

inline const NamedDamage kDamages[] = {
    {"Truncated",
     [](const DamagedCheckpoint& at, std::mt19937_64& random) {
       const auto path = at.any_file(random);
       at.files.open(path, OpenMode::kUpdate)->truncate(random() % *at.files.file_size_bytes(path));
     }},
    {"Extended",
     [](const DamagedCheckpoint& at, std::mt19937_64& random) {
       const auto path = at.any_file(random);
       at.files.open(path, OpenMode::kUpdate)->truncate(*at.files.file_size_bytes(path) + 1 + random() % 5000);
     }},
    {"OneBitFlipped",
     [](const DamagedCheckpoint& at, std::mt19937_64& random) {
       const auto path = at.any_file(random);
       std::string content = at.read(path);
       content[random() % content.size()] ^= static_cast<char>(1 << random() % 8);
       at.overwrite(path, content);
     }},
    {"PageZeroed",
     [](const DamagedCheckpoint& at, std::mt19937_64& random) {
       const auto path = at.shard(at.any_rank(random));
       std::string content = at.read(path);
       const std::string before = content;
       while (content == before) {
         const std::size_t page = random() % (content.size() / 4096 + 1) * 4096;
         content.replace(page, 4096, std::min<std::size_t>(4096, content.size() - page), '\0');
       }
       at.overwrite(path, content);
     }},
    {"ShardsSwapped",
     [](const DamagedCheckpoint& at, std::mt19937_64&) {
       at.files.rename(at.shard(0), at.folder / "x");
       at.files.rename(at.shard(1), at.shard(0));
       at.files.rename(at.folder / "x", at.shard(1));
     }},
    {"ShardDuplicated",
     [](const DamagedCheckpoint& at, std::mt19937_64& random) {
       const std::size_t from = random() % 2;
       at.overwrite(at.shard(1 - from), at.read(at.shard(from)));
     }},
    {"FileMissing", [](const DamagedCheckpoint& at, std::mt19937_64& random) { at.files.remove(at.any_file(random)); }},
    {"FileIsAFolder",
     [](const DamagedCheckpoint& at, std::mt19937_64& random) {
       const auto path = at.any_file(random);
       at.files.remove(path);
       at.files.make_directory(path);
     }},
    {"FileOfAnotherStep",
     [](const DamagedCheckpoint& at, std::mt19937_64& random) {
       const auto path = at.any_file(random);
       at.overwrite(path, at.read(at.other_step / path.filename()));
     }},
    {"AllOfAnotherStep",
     [](const DamagedCheckpoint& at, std::mt19937_64&) {
       for (const std::string& name : at.files.list(at.other_step))
         at.overwrite(at.folder / name, at.read(at.other_step / name));
     }},
};

}  // namespace strake::test
