#include "launch/report/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <vector>

namespace strake::launch {
namespace {

// Largest rank first: the last one is the first to go where room is short.
struct Field {
  std::string text;
  int rank;
};

std::size_t width_of(std::span<const Field> fields, std::string_view between) {
  std::size_t width = 0;
  for (const Field& field : fields) width += field.text.size() + (width > 0 ? between.size() : 0);
  return width;
}

void leave_out(std::vector<Field>& fields, std::string_view between, std::size_t columns) {
  std::erase_if(fields, [](const Field& field) { return field.text.empty(); });
  while (fields.size() > 1 && width_of(fields, between) > columns) {
    fields.erase(
        std::min_element(fields.begin(), fields.end(), [](const Field& a, const Field& b) { return a.rank < b.rank; }));
  }
}

std::string joined(std::span<const Field> fields, std::string_view between, std::size_t columns) {
  std::string out;
  for (const Field& field : fields) {
    if (!out.empty()) out += between;
    out += field.text;
  }
  if (out.size() > columns) out.resize(columns);
  return out;
}

// "5.4e-4"
std::string small(double value) {
  if (value == 0) return "0";
  std::string text = fmt::format("{:.1e}", value);
  if (const std::size_t zero = text.find("e-0"); zero != std::string::npos) text.erase(zero + 2, 1);
  return text;
}

std::string loss_text(double loss) { return std::abs(loss) < 1000 ? fmt::format("{:.4f}", loss) : small(loss); }

std::string norm_text(double norm) { return norm >= 0.01 && norm < 1000 ? fmt::format("{:.2f}", norm) : small(norm); }

std::string percent(const std::optional<double>& share, std::string_view name) {
  return share.has_value() ? fmt::format("{} {:.0f}%", name, 100 * *share) : "";
}

// Whole seconds: what is drawn again and again should not flicker.
std::string clock_text(Seconds time) {
  return time.count() < 9.5 ? fmt::format("{:.0f}s", std::max(time.count(), 0.0)) : duration_text(time);
}

std::string checkpoint_text(const NextCheckpoint& next) {
  if (next.step.has_value()) return fmt::format("checkpoint at {}", *next.step);
  if (next.in.has_value()) return fmt::format("checkpoint in {}", clock_text(*next.in));
  return "";
}

std::string eta_text(const std::optional<Seconds>& left) {
  return left.has_value() ? fmt::format("ETA {}", clock_text(*left)) : "";
}

std::string slow_text(const std::optional<Progress::Slow>& slow) {
  if (!slow.has_value()) return "";
  return fmt::format("slow r{} {:.2f}x ({})", slow->rank, slow->factor, name_of(slow->step_class));
}

// "[====>    ]", `columns` wide.
std::string bar(double share, std::size_t columns) {
  const std::size_t room = columns - 2;
  const auto full = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(room));
  std::string out = "[" + std::string(full, '=');
  if (full < room) out += ">" + std::string(room - full - 1, ' ');
  return out + "]";
}

}  // namespace

std::string count_text(double number) {
  constexpr std::array<std::string_view, 5> kUnits{"", "k", "M", "B", "T"};
  std::size_t unit = 0;
  while (number >= 999.5 && unit + 1 < kUnits.size()) {
    number /= 1000;
    ++unit;
  }
  const int digits = unit == 0 ? 0 : number < 9.995 ? 2 : number < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", number, digits, kUnits[unit]);
}

std::string duration_text(Seconds duration) {
  if (duration.count() < 0.9995) return fmt::format("{:.0f}ms", std::max(duration.count() * 1e3, 0.0));
  if (duration.count() < 9.95) return fmt::format("{:.1f}s", duration.count());
  const std::int64_t seconds = std::llround(duration.count());
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  if (seconds < 86400) return fmt::format("{}h{:02}m", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{}d{:02}h", seconds / 86400, seconds / 3600 % 24);
}

std::string bar_text(const Progress& p, int columns) {
  constexpr std::size_t kShortest = 7, kLongest = 30;
  constexpr std::string_view kBetween = "  ";
  const auto room = static_cast<std::size_t>(std::max(columns, 1));
  std::vector<Field> fields{
      {fmt::format("step {}/{}", p.step, p.steps), 100},
      {fmt::format("loss {}", loss_text(p.loss)), 90},
      {fmt::format("lr {}", small(p.learning_rate)), 40},
      {fmt::format("norm {}", norm_text(p.grad_norm)), 45},
      {fmt::format("{} tok/s", count_text(p.tokens_per_s)), 70},
      {percent(p.mfu, "MFU"), 50},
      {percent(p.exposed, "exposed"), 35},
      {slow_text(p.slow), 5},
      {fmt::format("elapsed {}", clock_text(p.elapsed)), 30},
      {eta_text(p.left), 80},
      {checkpoint_text(p.next_checkpoint), 20},
      {p.doing.empty() ? "" : fmt::format("({})", p.doing), 95},
  };
  const bool draws = room > 2 * kShortest;
  const std::size_t beside = kShortest + kBetween.size();
  leave_out(fields, kBetween, draws ? room - beside : room);
  std::string text = joined(fields, kBetween, room);
  if (draws && text.size() + beside <= room) {
    const std::size_t length = std::min(room - text.size() - kBetween.size(), kLongest);
    const double share = p.steps > 0 ? static_cast<double>(p.step) / static_cast<double>(p.steps) : 0;
    text = bar(share, length) + std::string(kBetween) + text;
  }
  return text;
}

std::string line_text(const Progress& p, int columns) {
  std::vector<Field> fields{
      {fmt::format("step {}/{}", p.step, p.steps), 100},
      {fmt::format("loss {}", loss_text(p.loss)), 90},
      {fmt::format("lr {}", small(p.learning_rate)), 45},
      {fmt::format("norm {}", norm_text(p.grad_norm)), 50},
      {fmt::format("{} tok/s", count_text(p.tokens_per_s)), 70},
      {percent(p.mfu, "MFU"), 40},
      {percent(p.exposed, "exposed"), 60},
      {eta_text(p.left), 80},
      {slow_text(p.slow), 10},
  };
  const auto room = static_cast<std::size_t>(std::max(columns, 1));
  leave_out(fields, " ", room);
  return joined(fields, " ", room);
}

}  // namespace strake::launch
