// A folder for one test on the real file system, removed with all it holds when the test ends.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace strake::test {

class ScratchFolder {
 public:
  // kMemory: where syncing costs nothing, for tests that kill processes and not machines.
  enum class Where { kDisk, kMemory };
  explicit ScratchFolder(Where where = Where::kDisk) {
    const std::filesystem::path memory = "/dev/shm";
    const bool in_memory = where == Where::kMemory && std::filesystem::is_directory(memory);
    std::string name = ((in_memory ? memory : std::filesystem::temp_directory_path()) / "strake-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a scratch folder");
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace strake::test
