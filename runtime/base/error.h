// Errors that end a step or a run, and the process exit codes they map to.
//
// Every message says in one line: what is wrong, where (file, key, tensor), and the remedy. launch/
// adds the rank. Expected absences (no checkpoint yet, event not done) are std::optional, not errors.
#pragma once

#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace strake {

// The table in README.md lists exactly these (a test compares the two). Requeue scripts use them: never renumber.
enum class ExitCode : int {
  kDone = 0,
  kFailure = 1,        // none of those below: a mistake of the program or of who uses a library of it
  kConfig = 10,        // unknown key, bad value, contradiction
  kData = 11,          // token file missing, truncated, no token file, token id out of range
  kNoCheckpoint = 12,  // a checkpoint was expected and none is valid
  kIncompatibleCheckpoint = 13,
  kNonFinite = 14,  // loss or gradient norm is NaN or infinite
  kHang = 15,
  kPeerOrDeviceLost = 16,
  kStorage = 17,       // disk full, I/O error
  kPreempted = 18,     // stopped on request, checkpoint durable: requeue
  kInterrupted = 130,  // a second Ctrl-C: 128 + SIGINT, as shells have it; nothing was saved
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode exit_code() const { return code_; }

 private:
  ExitCode code_;
};

struct ConfigError : Error {
  explicit ConfigError(const std::string& message) : Error(ExitCode::kConfig, message) {}
};
struct DataError : Error {
  explicit DataError(const std::string& message) : Error(ExitCode::kData, message) {}
};
// More memory than there is: smaller sizes or more ranks help, another try does not.
struct OutOfMemoryError : Error {
  explicit OutOfMemoryError(const std::string& message) : Error(ExitCode::kConfig, message) {}
};
struct DeviceError : Error {
  explicit DeviceError(const std::string& message) : Error(ExitCode::kPeerOrDeviceLost, message) {}
};
struct CommError : Error {
  CommError(const std::string& message, int peer, ExitCode code = ExitCode::kPeerOrDeviceLost)
      : Error(code, message), peer_rank(peer) {}
  int peer_rank;  // -1: not known
};
// The ranks are not at the same call: trying again would end the same way.
struct DisagreementError : CommError {
  explicit DisagreementError(const std::string& message, int peer = -1)
      : CommError(message, peer, ExitCode::kFailure) {}
};
// Ranks that should hold the same weights do not: trying again from here would end the same way.
struct DivergenceError : Error {
  explicit DivergenceError(const std::string& message) : Error(ExitCode::kFailure, message) {}
};
struct NonFiniteError : Error {
  explicit NonFiniteError(const std::string& message) : Error(ExitCode::kNonFinite, message) {}
};
// An operating-system call on a file failed. `message` already names path and errno text.
struct IoError : Error {
  IoError(const std::string& message, std::string file_path, int errno_value)
      : Error(ExitCode::kStorage, message), path(std::move(file_path)), error_number(errno_value) {}
  std::string path;
  int error_number;

  // The path can never be used as it is, whatever is freed or repaired: of a folder that somebody chose, a mistake in
  // the configuration.
  bool wrong_path() const {
    switch (error_number) {
      case EACCES:
      case EPERM:
      case EEXIST:
      case ENOENT:
      case ENOTDIR:
      case EISDIR:
      case ELOOP:
      case ENAMETOOLONG:
        return true;
      default:
        return false;
    }
  }
};
// The bytes of a file are not what was written (bad checksum, bad structure).
struct CorruptError : Error {
  CorruptError(const std::string& message, std::string file_path, std::uint64_t offset,
               ExitCode code = ExitCode::kNoCheckpoint)
      : Error(code, message), path(std::move(file_path)), offset_bytes(offset) {}
  std::string path;
  std::uint64_t offset_bytes;
};
struct NoCheckpointError : Error {
  explicit NoCheckpointError(const std::string& message) : Error(ExitCode::kNoCheckpoint, message) {}
};
struct IncompatibleCheckpointError : Error {
  explicit IncompatibleCheckpointError(const std::string& message)
      : Error(ExitCode::kIncompatibleCheckpoint, message) {}
};

}  // namespace strake
