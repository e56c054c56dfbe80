#include "checkpoint/agreement.h"

#include <fmt/format.h>

#include <exception>
#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/base/error.h"

namespace strake::checkpoint {
namespace {

using Json = nlohmann::json;

std::string failure_text(const Error& error) {
  Json json = {{"code", static_cast<int>(error.exit_code())}, {"message", error.what()}};
  if (const auto* io = dynamic_cast<const IoError*>(&error)) {
    json["path"] = io->path;
    json["errno"] = io->error_number;
  } else if (const auto* corrupt = dynamic_cast<const CorruptError*>(&error)) {
    json["path"] = corrupt->path;
    json["offset"] = corrupt->offset_bytes;
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

[[noreturn]] void throw_failure(std::size_t rank, const std::string& text) {
  const Json json = Json::parse(text);
  const auto code = static_cast<ExitCode>(json.at("code").get<int>());
  const std::string message = fmt::format("rank {}: {}", rank, json.at("message").get<std::string>());
  if (json.contains("errno")) throw IoError(message, json.at("path"), json.at("errno"));
  if (json.contains("offset")) throw CorruptError(message, json.at("path"), json.at("offset"), code);
  if (code == ExitCode::kIncompatibleCheckpoint) throw IncompatibleCheckpointError(message);
  if (code == ExitCode::kConfig) throw ConfigError(message);
  throw Error(code, message);
}

}  // namespace

std::vector<std::string> agree(comm::Control& control, const std::function<std::string()>& work) {
  std::exception_ptr own_failure;
  std::string ballot;  // "+" and the result, or "-" and the failure
  try {
    ballot = "+" + work();
  } catch (const Error& error) {
    own_failure = std::current_exception();
    ballot = "-" + failure_text(error);
  }
  std::vector<std::string> ballots = control.all_gather(ballot);
  for (std::size_t rank = 0; rank < ballots.size(); ++rank) {
    if (ballots[rank].starts_with('+')) continue;
    if (static_cast<int>(rank) == control.rank()) std::rethrow_exception(own_failure);
    throw_failure(rank, ballots[rank].substr(1));
  }
  for (std::string& text : ballots) text.erase(0, 1);
  return ballots;
}

std::string agree_on_root(comm::Control& control, const std::function<std::string()>& work) {
  return std::move(agree(control, [&] { return control.rank() == 0 ? work() : std::string(); }).front());
}

}  // namespace strake::checkpoint
