#include "data/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "data/byte_tokenizer.h"
#include "data/token_file_writer.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::data {
namespace {

constexpr std::size_t kBufferBytes = 32 * 1024;
// How far behind the wanted place the cut between the two parts may lie, to fall on the end of a line.
constexpr std::int64_t kLongestLineBytes = 64 * 1024;

// Several files read as one text.
class Text {
 public:
  Text(Files& files, const std::vector<std::filesystem::path>& paths) : files_(files) {
    for (const auto& path : paths) {
      const std::optional<std::uint64_t> bytes = files.file_size_bytes(path);
      if (!bytes) {
        throw DataError(fmt::format("input {}: expected a text file, found {}. Check the path",
                                    json_quote(path.string()),
                                    files.exists(path) ? "a folder, pipe or device" : "nothing of that name"));
      }
      parts_.push_back({path, size_bytes_, size_bytes_ + static_cast<std::int64_t>(*bytes)});
      size_bytes_ = parts_.back().end_bytes;
    }
  }

  std::int64_t size_bytes() const { return size_bytes_; }

  // Fills `out` from byte `begin`. REQUIRES: in range.
  void read(std::int64_t begin, std::span<char> out) {
    while (!out.empty()) {
      if (begin < parts_[current_].begin_bytes || begin >= parts_[current_].end_bytes || file_ == nullptr)
        open_part(begin);
      const Part& part = parts_[current_];
      const auto here = static_cast<std::size_t>(
          std::min<std::int64_t>(static_cast<std::int64_t>(out.size()), part.end_bytes - begin));
      const std::span<char> piece = out.first(here);
      const auto offset = static_cast<std::uint64_t>(begin - part.begin_bytes);
      const std::size_t got = file_->read(std::as_writable_bytes(piece), offset);
      if (got != here) {
        throw DataError(
            fmt::format("input {}: expected {} bytes, found its end at {}: it changed while being read. "
                        "Prepare again",
                        json_quote(part.path.string()), part.end_bytes - part.begin_bytes, offset + got));
      }
      begin += static_cast<std::int64_t>(here);
      out = out.subspan(here);
    }
  }

 private:
  struct Part {
    std::filesystem::path path;
    std::int64_t begin_bytes;
    std::int64_t end_bytes;
  };

  void open_part(std::int64_t position) {
    const auto found =
        std::find_if(parts_.begin(), parts_.end(), [&](const Part& p) { return position < p.end_bytes; });
    current_ = static_cast<std::size_t>(found - parts_.begin());
    file_ = files_.open(found->path, OpenMode::kRead);
  }

  Files& files_;
  std::vector<Part> parts_;
  std::int64_t size_bytes_ = 0;
  std::size_t current_ = 0;
  std::unique_ptr<File> file_;
};

// Where the held-out part begins: behind the first end of line at or after the wanted place, if there is one near.
std::int64_t find_cut(Text& text, std::int64_t wanted) {
  const std::int64_t begin = std::max<std::int64_t>(wanted - 1, 0);
  std::string near(static_cast<std::size_t>(std::min(kLongestLineBytes, text.size_bytes() - begin)), '\0');
  text.read(begin, near);
  const std::size_t end_of_line = near.find('\n');
  const std::int64_t cut = begin + static_cast<std::int64_t>(end_of_line) + 1;
  return end_of_line == std::string::npos || cut >= text.size_bytes() ? wanted : cut;
}

void tokenize(Text& text, std::int64_t begin, std::int64_t end, TokenFileWriter& out) {
  std::string bytes(kBufferBytes, '\0');
  std::vector<std::int32_t> ids(kBufferBytes);
  while (begin < end) {
    const auto here = static_cast<std::size_t>(std::min<std::int64_t>(kBufferBytes, end - begin));
    text.read(begin, std::span(bytes).first(here));
    ByteTokenizer::encode(std::string_view(bytes).substr(0, here), std::span(ids).first(here));
    out.append(std::span(ids).first(here));
    begin += static_cast<std::int64_t>(here);
  }
}

bool same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code ignored;  // of a file that is not there yet: then the names decide
  return std::filesystem::equivalent(a, b, ignored) || a.lexically_normal() == b.lexically_normal();
}

void check_options(const PrepareOptions& options) {
  if (!(options.val_fraction >= 0 && options.val_fraction < 1)) {
    throw ConfigError(fmt::format("val-fraction: expected a number from 0 to below 1, found {}", options.val_fraction));
  }
  if (options.inputs.empty()) throw ConfigError("data prepare: expected at least one text file, found none");
  if (options.train.empty())
    throw ConfigError("data prepare: expected the name of the token file to write, found none");
  if (options.val_fraction > 0 && options.val.empty()) {
    throw ConfigError(
        "data prepare: val-fraction is above 0: expected the name of the held-out token file, found none");
  }
  std::vector<std::filesystem::path> outputs{options.train};
  if (options.val_fraction > 0) outputs.push_back(options.val);
  if (outputs.size() == 2 && same_file(options.train, options.val)) {
    throw ConfigError(fmt::format("data prepare: training and held-out tokens cannot both go to {}",
                                  json_quote(options.train.string())));
  }
  for (const auto& input : options.inputs) {
    for (const auto& output : outputs) {
      if (same_file(input, output)) {
        throw ConfigError(fmt::format("data prepare: {} is input and output: choose another name for the tokens",
                                      json_quote(input.string())));
      }
    }
  }
}

std::string names_of(const std::vector<std::filesystem::path>& inputs) {
  std::string names = inputs.front().filename().string();
  if (inputs.size() > 1) names += fmt::format(" and {} more files", inputs.size() - 1);
  return names;
}

}  // namespace

PrepareResult prepare(Files& files, const PrepareOptions& options) {
  check_options(options);
  Text text(files, options.inputs);
  const std::int64_t total = text.size_bytes();
  if (total == 0) {
    throw DataError(fmt::format("input {}: expected text, found {} empty file(s)",
                                json_quote(options.inputs.front().string()), options.inputs.size()));
  }
  std::int64_t cut = total;
  if (options.val_fraction > 0) {
    const auto val_bytes = static_cast<std::int64_t>(std::llround(static_cast<double>(total) * options.val_fraction));
    if (val_bytes < 1 || val_bytes >= total) {
      throw DataError(fmt::format("input {}: {} bytes are too few to hold out a fraction of {}. Use more text",
                                  json_quote(options.inputs.front().string()), total, options.val_fraction));
    }
    cut = find_cut(text, total - val_bytes);
  }

  TokenFileInfo info;
  info.vocab = ByteTokenizer::kVocab;
  info.tokenizer = ByteTokenizer::identity();
  info.source = (options.source.empty() ? names_of(options.inputs) : options.source).substr(0, 1024);
  const auto writer_of = [&](const std::filesystem::path& path, std::int64_t begin, std::int64_t end) {
    files.make_directories(path.parent_path());
    TokenFileInfo part = info;
    part.source += fmt::format(", bytes {} to {} of {}", begin, end, total);
    auto writer = std::make_unique<TokenFileWriter>(files, path, part);
    tokenize(text, begin, end, *writer);
    writer->finish();
    return writer;
  };
  // Both are complete before either gets its name.
  const auto train = writer_of(options.train, 0, cut);
  const auto val = cut < total ? writer_of(options.val, cut, total) : nullptr;
  train->publish();
  if (val != nullptr) val->publish();
  return {.input_bytes = total,
          .train_tokens = train->info().tokens,
          .val_tokens = val == nullptr ? 0 : val->info().tokens,
          .train = options.train,
          .val = val == nullptr ? std::filesystem::path() : options.val};
}

}  // namespace strake::data
