#include "tests/faults/process_ranks.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::test {
namespace {

constexpr std::size_t kControls = 3;  // the ranks', and duplicates

// A descriptor, closed at the end.
class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  void close() {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  }

  void send(std::string_view text) const {
    const std::uint64_t length = text.size();
    std::string message(reinterpret_cast<const char*>(&length), sizeof(length));
    message += text;
    for (std::size_t at = 0; at < message.size();) {
      const ssize_t n = ::send(descriptor_, message.data() + at, message.size() - at, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw lost();
      at += static_cast<std::size_t>(n);
    }
  }
  std::string receive() const {
    std::uint64_t length = 0;
    receive_into(reinterpret_cast<char*>(&length), sizeof(length));
    std::string text(length, '\0');
    receive_into(text.data(), text.size());
    return text;
  }

 private:
  static CommError lost() { return CommError("a peer has died", -1); }
  void receive_into(char* data, std::size_t size) const {
    for (std::size_t at = 0; at < size;) {
      const ssize_t n = ::recv(descriptor_, data + at, size - at, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw lost();
      at += static_cast<std::size_t>(n);
    }
  }

  int descriptor_;
};

// Of one world and one control: the ends at rank 0, and those of the others.
struct Star {
  std::vector<Socket> at_root, at_peer;  // of ranks 1, 2, ...
};

class ProcessControl final : public comm::Control {
 public:
  ProcessControl(int rank, int ranks, std::vector<Star>& stars, std::size_t& used)
      : rank_(rank), ranks_(ranks), stars_(stars), used_(used), star_(stars.at(used++)) {}

  int rank() const override { return rank_; }
  int size() const override { return ranks_; }
  void post(std::span<const double> values) override {
    posted_.assign(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  std::vector<double> finish() override {
    std::vector<double> values;
    for (const std::string& text : all_gather(posted_)) {
      const std::size_t at = values.size();
      values.resize(at + text.size() / sizeof(double));
      std::memcpy(values.data() + at, text.data(), text.size());
    }
    return values;
  }
  void barrier() override { all_gather(""); }
  std::vector<std::string> all_gather(std::string_view text) override {
    std::vector<std::string> all(static_cast<std::size_t>(ranks_));
    if (rank_ != 0) {
      mine().send(text);
      for (std::string& of_rank : all) of_rank = mine().receive();
      return all;
    }
    all.front() = text;
    for (std::size_t peer = 1; peer < all.size(); ++peer) all[peer] = star_.at_root[peer - 1].receive();
    for (const Socket& peer : star_.at_root) {
      for (const std::string& of_rank : all) peer.send(of_rank);
    }
    return all;
  }
  std::string broadcast(std::string_view text, int root) override {
    return all_gather(text)[static_cast<std::size_t>(root)];
  }
  std::unique_ptr<Control> duplicate() override {
    return std::make_unique<ProcessControl>(rank_, ranks_, stars_, used_);
  }
  void abort(int exit_code) override { ::_exit(exit_code); }

 private:
  const Socket& mine() const { return star_.at_peer[static_cast<std::size_t>(rank_ - 1)]; }

  const int rank_, ranks_;
  std::vector<Star>& stars_;
  std::size_t& used_;
  Star& star_;
  std::string posted_;
};

std::vector<Star> connect(int ranks) {
  std::vector<Star> stars(kControls);
  for (Star& star : stars) {
    for (int peer = 1; peer < ranks; ++peer) {
      int ends[2];
      STRAKE_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "no sockets");
      star.at_root.emplace_back(ends[0]);
      star.at_peer.emplace_back(ends[1]);
    }
  }
  return stars;
}

// A peer's death shows only when nobody else holds its end.
void keep_only(std::vector<Star>& stars, int rank) {
  for (Star& star : stars) {
    for (std::size_t i = 0; i < star.at_peer.size(); ++i) {
      if (rank != 0) star.at_root[i].close();
      if (rank != static_cast<int>(i) + 1) star.at_peer[i].close();
    }
  }
}

}  // namespace

ProcessRanks::ProcessRanks(int ranks, const std::function<int(int, comm::Control&)>& body)
    : ends_(static_cast<std::size_t>(ranks)) {
  std::vector<Star> stars = connect(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    const pid_t process = ::fork();
    STRAKE_CHECK(process >= 0, "cannot fork");
    if (process == 0) {
      keep_only(stars, rank);
      std::size_t used = 0;
      ProcessControl control(rank, ranks, stars, used);
      ::_exit(body(rank, control));
    }
    processes_.push_back(process);
  }
}

ProcessRanks::~ProcessRanks() {
  kill_all();
  reap(true);
}

void ProcessRanks::kill(int rank) {
  const pid_t process = processes_[static_cast<std::size_t>(rank)];
  if (process != 0) ::kill(process, SIGKILL);  // a zombie at worst: it is reaped here only
}

void ProcessRanks::kill_all() {
  for (std::size_t rank = 0; rank < processes_.size(); ++rank) kill(static_cast<int>(rank));
}

bool ProcessRanks::ended() {
  reap(false);
  for (const pid_t process : processes_) {
    if (process != 0) return false;
  }
  return true;
}

const std::vector<ProcessEnd>& ProcessRanks::wait(std::chrono::seconds limit) {
  constexpr std::chrono::microseconds kLook{200};
  for (auto waited = std::chrono::microseconds(0); !ended() && waited < limit; waited += kLook)
    std::this_thread::sleep_for(kLook);
  kill_all();
  reap(true);
  return ends_;
}

void ProcessRanks::reap(bool block) {
  for (std::size_t rank = 0; rank < processes_.size(); ++rank) {
    int status = 0;
    if (processes_[rank] == 0) continue;
    if (::waitpid(processes_[rank], &status, block ? 0 : WNOHANG) != processes_[rank]) continue;
    processes_[rank] = 0;
    if (WIFSIGNALED(status)) ends_[rank].signal = WTERMSIG(status);
    if (WIFEXITED(status)) ends_[rank].code = WEXITSTATUS(status);
  }
}

}  // namespace strake::test
