#include "runtime/device/stream_clocks.h"

#include <algorithm>

namespace strake {

bool ordered(const Moment& earlier, const Clock& now) {
  if (earlier.stream < 0) return true;
  const auto index = static_cast<std::size_t>(earlier.stream);
  return index < now.size() && now[index] >= earlier.number;
}

Moment StreamClocks::launch(int stream) {
  now(stream);
  return {stream, ++at(stream)[static_cast<std::size_t>(stream)]};
}

const Clock& StreamClocks::now(int stream) {
  Clock& clock = at(stream);
  join(clock, host_);
  return clock;
}

void StreamClocks::join(Clock& into, const Clock& from) {
  if (into.size() < from.size()) into.resize(from.size(), 0);
  for (std::size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

Clock& StreamClocks::at(int stream) {
  const auto index = static_cast<std::size_t>(stream);
  if (streams_.size() <= index) streams_.resize(index + 1);
  if (streams_[index].size() <= index) streams_[index].resize(index + 1, 0);
  return streams_[index];
}

}  // namespace strake
