// MemoryFiles: a file system in memory that can lose power.
//
// It keeps, beside what programs see, what is durable: the content of a file as of its last sync, the names in a
// folder as of its last sync. power_loss() keeps what is durable and, of everything since, a random subset: POSIX
// promises no order between unsynced changes, so any subset of name changes and any mix of old and new pages
// may survive. A renaming survives whole or not at all.
// Threads: any.
#pragma once

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "runtime/io/files.h"

namespace strake::test {

class MemoryFiles final : public Files {
 public:
  MemoryFiles() : root_(std::make_shared<Node>()) { root_->directory = true; }

  // The machine loses power and starts again: open files are gone, unsynced changes survive at random.
  template <typename Random>
  void power_loss(Random& random) {
    const std::lock_guard guard(mutex_);
    settle(*root_, random);
  }
  void set_free_bytes(std::uint64_t bytes) { free_bytes_ = bytes; }

  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    const std::lock_guard guard(mutex_);
    NodePtr node = find(path);
    const bool creates = mode != OpenMode::kRead && mode != OpenMode::kUpdate;
    if (node == nullptr) {
      if (!creates) throw io_error("open", path, ENOENT);
      Node& folder = parent(path);
      node = std::make_shared<Node>();
      link(folder, path.filename(), node);
    } else if (node->directory) {
      throw io_error("open", path, EISDIR);
    } else if (mode == OpenMode::kCreateNew) {
      throw io_error("open", path, EEXIST);
    } else if (mode == OpenMode::kReplace) {
      node->live.clear();
    }
    return std::make_unique<MemoryFile>(*this, path, node);
  }
  bool exists(const std::filesystem::path& path) override {
    const std::lock_guard guard(mutex_);
    return find(path) != nullptr;
  }
  bool is_directory(const std::filesystem::path& path) override {
    const std::lock_guard guard(mutex_);
    const NodePtr node = find(path);
    return node != nullptr && node->directory;
  }
  std::optional<std::uint64_t> file_size_bytes(const std::filesystem::path& path) override {
    const std::lock_guard guard(mutex_);
    const NodePtr node = find(path);
    if (node == nullptr || node->directory) return std::nullopt;
    return node->live.size();
  }
  std::vector<std::string> list(const std::filesystem::path& directory) override {
    const std::lock_guard guard(mutex_);
    const NodePtr node = find(directory);
    if (node == nullptr || !node->directory) throw io_error("list", directory, ENOENT);
    std::vector<std::string> names;
    for (const auto& [name, child] : node->entries) names.push_back(name);
    return names;
  }
  void make_directory(const std::filesystem::path& path) override {
    const std::lock_guard guard(mutex_);
    if (const NodePtr node = find(path); node != nullptr) {
      if (node->directory) return;
      throw io_error("make the folder", path, EEXIST);
    }
    auto node = std::make_shared<Node>();
    node->directory = true;
    link(parent(path), path.filename(), node);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    const std::lock_guard guard(mutex_);
    Node& folder = parent(from);
    if (&folder != &parent(to)) throw io_error("rename", from, EXDEV);
    const NodePtr node = find(from);
    if (node == nullptr) throw io_error("rename", from, ENOENT);
    if (const NodePtr target = find(to);
        target != nullptr && (target->directory != node->directory || !target->entries.empty())) {
      throw io_error("rename", from, ENOTEMPTY);
    }
    change(folder, {from.filename(), to.filename(), node});
  }
  void remove(const std::filesystem::path& path) override {
    const std::lock_guard guard(mutex_);
    const NodePtr node = find(path);
    if (node == nullptr) return;
    if (!node->entries.empty()) throw io_error("remove", path, ENOTEMPTY);
    change(parent(path), {path.filename(), "", nullptr});
  }
  void sync_directory(const std::filesystem::path& path) override {
    const std::lock_guard guard(mutex_);
    const NodePtr node = find(path);
    if (node == nullptr || !node->directory) throw io_error("sync the folder", path, ENOENT);
    node->durable_entries = node->entries;
    node->pending.clear();
  }
  std::uint64_t free_bytes(const std::filesystem::path&) override { return free_bytes_; }

 private:
  static constexpr std::size_t kPageBytes = 4096;

  struct Node;
  using NodePtr = std::shared_ptr<Node>;  // shared: the durable tree, the live tree and open files hold nodes
  struct Change {
    std::string erased;  // empty: none
    std::string linked;  // empty: none
    NodePtr node;
  };
  struct Node {
    bool directory = false;
    bool locked = false;
    std::vector<std::byte> live, durable;
    std::map<std::string, NodePtr> entries, durable_entries;
    std::vector<Change> pending;  // since the last sync of this folder
  };

  class MemoryFile final : public File {
   public:
    MemoryFile(MemoryFiles& owner, std::filesystem::path path, NodePtr node)
        : File(std::move(path)), owner_(owner), node_(std::move(node)) {}
    ~MemoryFile() override { release(); }

    std::uint64_t size_bytes() const override {
      const std::lock_guard guard(owner_.mutex_);
      return node_->live.size();
    }
    void truncate(std::uint64_t size_bytes) override {
      const std::lock_guard guard(owner_.mutex_);
      node_->live.resize(size_bytes);
    }
    void allocate(std::uint64_t size_bytes) override {
      const std::lock_guard guard(owner_.mutex_);
      node_->live.resize(std::max<std::size_t>(node_->live.size(), size_bytes));
    }
    void sync() override {
      const std::lock_guard guard(owner_.mutex_);
      node_->durable = node_->live;
    }
    void close() override { release(); }
    Lock try_lock() override {
      const std::lock_guard guard(owner_.mutex_);
      if (node_->locked && !holds_lock_) return Lock::kHeldByOther;
      node_->locked = holds_lock_ = true;
      return Lock::kTaken;
    }

   protected:
    std::ptrdiff_t write_some(std::span<const std::byte> bytes, std::uint64_t offset) override {
      const std::lock_guard guard(owner_.mutex_);
      if (offset == kEnd) offset = node_->live.size();
      node_->live.resize(std::max<std::size_t>(node_->live.size(), offset + bytes.size()));
      std::copy(bytes.begin(), bytes.end(), node_->live.begin() + static_cast<std::ptrdiff_t>(offset));
      return static_cast<std::ptrdiff_t>(bytes.size());
    }
    std::ptrdiff_t read_some(std::span<std::byte> bytes, std::uint64_t offset) const override {
      const std::lock_guard guard(owner_.mutex_);
      if (offset >= node_->live.size()) return 0;
      const std::size_t n = std::min<std::size_t>(bytes.size(), node_->live.size() - offset);
      std::copy_n(node_->live.begin() + static_cast<std::ptrdiff_t>(offset), n, bytes.begin());
      return static_cast<std::ptrdiff_t>(n);
    }

   private:
    void release() {
      const std::lock_guard guard(owner_.mutex_);
      if (holds_lock_) node_->locked = holds_lock_ = false;
    }
    MemoryFiles& owner_;
    NodePtr node_;
    bool holds_lock_ = false;
  };

  NodePtr find(const std::filesystem::path& path) const {
    NodePtr node = root_;
    for (const auto& part : path.lexically_normal()) {
      if (part == "/" || part.empty() || part == ".") continue;
      const auto it = node->entries.find(part);
      if (it == node->entries.end()) return nullptr;
      node = it->second;
    }
    return node;
  }
  Node& parent(const std::filesystem::path& path) const {
    const NodePtr node = find(path.parent_path());
    if (node == nullptr) throw io_error("reach", path, ENOENT);
    if (!node->directory) throw io_error("reach", path, ENOTDIR);
    return *node;
  }
  static void apply(std::map<std::string, NodePtr>& entries, const Change& change) {
    if (!change.erased.empty()) entries.erase(change.erased);
    if (!change.linked.empty()) entries[change.linked] = change.node;
  }
  static void change(Node& folder, Change change) {
    apply(folder.entries, change);
    folder.pending.push_back(std::move(change));
  }
  static void link(Node& folder, const std::string& name, const NodePtr& node) { change(folder, {"", name, node}); }

  template <typename Random>
  static void settle(Node& node, Random& random) {
    // Nothing, everything or a mixture of what was not synced: the extremes are the likeliest in life.
    const double share = std::array{0.0, 0.5, 1.0}[random() % 3];
    std::bernoulli_distribution survives(share);
    node.locked = false;
    for (const Change& pending : node.pending) {
      if (survives(random)) apply(node.durable_entries, pending);
    }
    node.pending.clear();
    node.entries = node.durable_entries;
    if (!node.directory) {
      std::vector<std::byte> content = survives(random) ? node.live : node.durable;
      for (std::size_t page = 0; page < content.size(); page += kPageBytes) {
        const std::vector<std::byte>& source = survives(random) ? node.live : node.durable;
        for (std::size_t i = page; i < std::min(page + kPageBytes, content.size()); ++i) {
          content[i] = i < source.size() ? source[i] : std::byte{0};
        }
      }
      node.live = node.durable = std::move(content);
    }
    for (const auto& [name, child] : node.entries) settle(*child, random);
  }

  std::mutex mutex_;
  NodePtr root_;
  std::uint64_t free_bytes_ = std::uint64_t{1} << 40;
};

}  // namespace strake::test
