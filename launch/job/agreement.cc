#include "launch/job/agreement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <map>
#include <string>
#include <vector>

namespace strake::launch {

void agree(comm::Control& control, const std::function<void()>& work) {
  std::string note;  // "": fine; else "<exit code> <message>"
  try {
    work();
  } catch (const Error& error) {
    note = fmt::format("{} {}", static_cast<int>(error.exit_code()), error.what());
  } catch (const std::exception& error) {
    note = fmt::format("{} {}", 1, error.what());
  }
  std::map<std::string, std::vector<std::size_t>> ranks_of;
  std::string first;
  const std::vector<std::string> notes = control.all_gather(note);
  for (std::size_t rank = 0; rank < notes.size(); ++rank) {
    if (notes[rank].empty()) continue;
    if (first.empty()) first = notes[rank];
    ranks_of[notes[rank]].push_back(rank);
  }
  if (first.empty()) return;

  int code = 1;
  std::from_chars(first.data(), first.data() + first.size(), code);
  std::string report;
  for (const auto& [text, ranks] : ranks_of) {
    if (!report.empty()) report += '\n';
    if (ranks.size() < notes.size()) report += fmt::format("rank {}: ", fmt::join(ranks, ", "));
    report += text.substr(text.find(' ') + 1);
  }
  throw AgreedError(static_cast<ExitCode>(code), report);
}

}  // namespace strake::launch
