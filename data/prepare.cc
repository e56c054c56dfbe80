#include "data/prepare.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "data/byte_tokenizer.h"
#include "data/token_file_writer.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::data {
namespace {

constexpr std::size_t kReaderBufferBytes = 32 * 1024;
// How far behind the wanted place the cut between the two parts may lie, to fall on the end of a line.
constexpr std::int64_t kLongestLineBytes = 64 * 1024;

constexpr std::string_view kStandardInput = "-";

struct OpenPipe {
  explicit OpenPipe(const std::filesystem::path& path) : descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor < 0) throw io_error("open", path, errno);
  }
  ~OpenPipe() { ::close(descriptor); }
  OpenPipe(const OpenPipe&) = delete;
  OpenPipe& operator=(const OpenPipe&) = delete;

  const int descriptor;
};

// What comes out of a pipe, in a file without a name: the system removes it however the program ends. `name` is what
// messages call the pipe.
std::unique_ptr<File> spool(Files& files, const std::filesystem::path& path, int descriptor,
                            const std::filesystem::path& name) {
  std::unique_ptr<File> file = files.open(path, OpenMode::kReplace);
  files.remove(path);
  std::vector<std::byte> buffer(kReaderBufferBytes);
  std::uint64_t offset_bytes = 0;
  while (true) {
    const ssize_t got = ::read(descriptor, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw io_error("read", name, errno);
    if (got == 0) break;
    file->write(std::span(buffer).first(static_cast<std::size_t>(got)), offset_bytes);
    offset_bytes += static_cast<std::uint64_t>(got);
  }
  file->sync();  // a network file system may find out only now that it is full; what is read back would be zeros
  return file;
}

std::filesystem::path sidecar_of(std::filesystem::path token_file) {
  token_file += ".json";
  return token_file;
}

bool holds_sidecar(Files& files, const std::filesystem::path& path) {
  const std::optional<std::uint64_t> bytes = files.file_size_bytes(path);
  return bytes && *bytes <= kMaxSidecarBytes && is_sidecar(read_file(files, path, kMaxSidecarBytes));
}

// Several files read as one text.
class Text {
 public:
  Text(Files& files, const PrepareOptions& options) : files_(files) {
    for (const auto& path : options.inputs) {
      if (path == kStandardInput) {
        add_pipe(options, options.standard_input, "standard input");
      } else if (std::error_code ignored; std::filesystem::is_fifo(path, ignored)) {
        const OpenPipe pipe(path);
        add_pipe(options, pipe.descriptor, path);
      } else {
        add_file(path);
        refuse_no_text(path);
      }
    }
  }

  std::int64_t size_bytes() const { return size_bytes_; }
  // Of its first part, in messages.
  std::string name() const { return parts_.front().name.string(); }

  // Fills `out` from byte `begin`. REQUIRES: in range.
  void read(std::int64_t begin, std::span<char> out) {
    while (!out.empty()) {
      const Part& part = part_at(begin);
      const auto here = static_cast<std::size_t>(
          std::min<std::int64_t>(static_cast<std::int64_t>(out.size()), part.end_bytes - begin));
      const std::span<char> piece = out.first(here);
      const auto offset = static_cast<std::uint64_t>(begin - part.begin_bytes);
      const std::size_t got = (part.spool != nullptr ? part.spool : file_)->read(std::as_writable_bytes(piece), offset);
      if (got != here) {
        throw DataError(
            fmt::format("input {}: expected {} bytes, found its end at {}: it changed while being read. "
                        "Prepare again",
                        json_quote(part.name.string()), part.end_bytes - part.begin_bytes, offset + got));
      }
      begin += static_cast<std::int64_t>(here);
      out = out.subspan(here);
    }
  }

 private:
  struct Part {
    std::filesystem::path name;  // of a spooled one only for messages
    std::int64_t begin_bytes;
    std::int64_t end_bytes;
    std::unique_ptr<File> spool;  // nullptr: it is read under its name
  };

  void add(const std::filesystem::path& name, std::uint64_t bytes, std::unique_ptr<File> spool) {
    parts_.push_back({name, size_bytes_, size_bytes_ + static_cast<std::int64_t>(bytes), std::move(spool)});
    size_bytes_ = parts_.back().end_bytes;
  }

  void add_file(const std::filesystem::path& path) {
    const std::optional<std::uint64_t> bytes = files_.file_size_bytes(path);
    if (!bytes) {
      const std::string_view found = files_.is_directory(path) ? "a folder"
                                     : files_.exists(path)     ? "a device"
                                                               : "nothing of that name";
      throw DataError(fmt::format(
          "input {}: expected a text file, found {}. {}", json_quote(path.string()), found,
          found == "a folder" ? fmt::format("Name the files in it, as in {}/*.txt", path.string()) : "Check the path"));
    }
    add(path, *bytes, nullptr);
  }

  void add_pipe(const PrepareOptions& options, int descriptor, const std::filesystem::path& name) {
    std::filesystem::path path = options.train;
    path += fmt::format(".{}-{}.text.tmp", ::getpid(), parts_.size());
    std::unique_ptr<File> file = spool(files_, path, descriptor, name);
    const std::uint64_t bytes = file->size_bytes();
    add(name, bytes, std::move(file));
  }

  // A packed file would be trained on as it lies there, and tokens would be made of tokens, without a word. What a pipe
  // brings is taken as it is.
  void refuse_no_text(const std::filesystem::path& path) {
    if (const auto sidecar = sidecar_of(path); holds_sidecar(files_, sidecar)) {
      throw DataError(
          fmt::format("input {}: expected text, found a token file: {} is its sidecar. Name it in data.train; if it is "
                      "text, move the sidecar away",
                      json_quote(path.string()), json_quote(sidecar.string())));
    }
    const std::string_view kind = kind_of_no_text(sample_of(path));
    if (kind.empty()) return;
    throw DataError(
        fmt::format("input {}: expected text, found {}. Unpack or convert it; through a pipe, `... | strake data "
                    "prepare -` reads whatever comes",
                    json_quote(path.string()), kind));
  }

  // Its first bytes, and parts that stand for the rest.
  std::vector<std::byte> sample_of(const std::filesystem::path& path) {
    constexpr std::uint64_t kParts = 8, kPartBytes = 16 * 1024;
    static_assert(kPartBytes >= kTokenHeadBytes);
    const std::unique_ptr<File> file = files_.open(path, OpenMode::kRead);
    const std::uint64_t bytes = file->size_bytes();
    std::vector<std::byte> sample(static_cast<std::size_t>(std::min(bytes, kParts * kPartBytes)));
    std::size_t have = 0;
    for (std::uint64_t i = 0; i < kParts && have < sample.size(); ++i) {
      const std::span<std::byte> rest = std::span(sample).subspan(have);
      const std::uint64_t last = (bytes - std::min(bytes, kPartBytes)) / 8 * 8;
      const std::uint64_t begin = bytes <= kParts * kPartBytes ? have : last * i / (kParts - 1) / 8 * 8;
      have += file->read(rest.first(std::min<std::size_t>(rest.size(), kPartBytes)), begin);
    }
    sample.resize(have);
    return sample;
  }

  // Opened, unless it is a spooled one.
  const Part& part_at(std::int64_t position) {
    if (position < parts_[current_].begin_bytes || position >= parts_[current_].end_bytes) {
      const auto found =
          std::find_if(parts_.begin(), parts_.end(), [&](const Part& p) { return position < p.end_bytes; });
      current_ = static_cast<std::size_t>(found - parts_.begin());
      file_ = nullptr;
    }
    const Part& part = parts_[current_];
    if (part.spool == nullptr && file_ == nullptr) file_ = files_.open(part.name, OpenMode::kRead);
    return part;
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
  std::string bytes(kReaderBufferBytes, '\0');
  std::vector<std::int32_t> ids(kReaderBufferBytes);
  while (begin < end) {
    const auto here = static_cast<std::size_t>(std::min<std::int64_t>(kReaderBufferBytes, end - begin));
    text.read(begin, std::span(bytes).first(here));
    ByteTokenizer::encode(std::string_view(bytes).substr(0, here), std::span(ids).first(here));
    out.append(std::span(ids).first(here));
    begin += static_cast<std::int64_t>(here);
  }
}

bool same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code ignored;  // of a file that is not there yet: then the names decide
  if (std::filesystem::equivalent(a, b, ignored)) return true;
  const auto place = [&](const std::filesystem::path& path) {
    return std::filesystem::weakly_canonical(std::filesystem::absolute(path, ignored), ignored);
  };
  return a.lexically_normal() == b.lexically_normal() || (!place(a).empty() && place(a) == place(b));
}

// What stands there that is no file and cannot be replaced by one; empty: nothing of the kind.
std::string_view obstacle(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  switch (fs::status(path, ignored).type()) {
    case fs::file_type::block:
    case fs::file_type::character:
      return "a device";
    case fs::file_type::fifo:
      return "a pipe";
    case fs::file_type::socket:
      return "a socket";
    case fs::file_type::not_found:
      return fs::is_symlink(path, ignored) ? "a link to nothing" : "";
    default:
      return "";
  }
}

// Where an output is written: a link is followed, as by every program that writes.
std::filesystem::path place_of(Files& files, const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  if (!path.has_filename() || files.is_directory(path)) {
    throw ConfigError(fmt::format("data prepare: {} is a folder: expected the name of the token file to write",
                                  json_quote(path.string())));
  }
  if (!files.is_directory(folder)) {
    throw ConfigError(fmt::format("data prepare: there is no folder {} to write {} in. Make it, or correct the path",
                                  json_quote(folder.string()), json_quote(path.filename().string())));
  }
  if (const std::string_view found = obstacle(path); !found.empty()) {
    throw ConfigError(fmt::format("data prepare: {} is {}: expected the name of the token file to write",
                                  json_quote(path.string()), found));
  }
  std::error_code error;
  if (!std::filesystem::is_symlink(path, error)) return path;
  std::filesystem::path target = std::filesystem::canonical(path, error);
  if (error) throw io_error("follow the link", path, error.value());
  return target;
}

// What is there and would be lost, or be taken for what it is not.
void check_sidecar(Files& files, const std::filesystem::path& output, const std::filesystem::path& place) {
  if (holds_sidecar(files, place)) {
    throw ConfigError(fmt::format("data prepare: {} is the sidecar of a token file: choose another name for the tokens",
                                  json_quote(output.string())));
  }
  const std::filesystem::path sidecar = sidecar_of(place), beside_link = sidecar_of(output);
  std::error_code ignored;
  const bool link = std::filesystem::is_symlink(sidecar, ignored);
  if (link || (files.exists(sidecar) && !holds_sidecar(files, sidecar))) {
    throw ConfigError(fmt::format(
        "data prepare: {} is in the way of the sidecar of {}: it is {}. Move it away, or choose another name for the "
        "tokens",
        json_quote(sidecar.string()), json_quote(output.string()),
        link ? "a link" : "not the sidecar of a token file"));
  }
  if (place != output && files.exists(beside_link) && !same_file(beside_link, sidecar)) {
    throw ConfigError(fmt::format(
        "data prepare: {} is a link to {}, where the sidecar is written too: {} would be the sidecar of other tokens. "
        "Remove it",
        json_quote(output.string()), json_quote(place.string()), json_quote(beside_link.string())));
  }
}

// Of what is read and what is written no two may be one file.
void check_collisions(const PrepareOptions& options) {
  struct Name {
    std::filesystem::path path;
    std::string_view what;
  };
  std::vector<Name> names{{options.train, "--train"}, {sidecar_of(options.train), "the sidecar of --train"}};
  if (!options.val.empty()) {
    names.push_back({options.val, "--val"});
    names.push_back({sidecar_of(options.val), "the sidecar of --val"});
  }
  const std::size_t outputs = names.size();
  for (const auto& input : options.inputs) {
    if (input != kStandardInput) names.push_back({input, "input"});
  }
  for (std::size_t i = 0; i < outputs; ++i) {
    for (std::size_t j = i + 1; j < names.size(); ++j) {
      if (!same_file(names[i].path, names[j].path)) continue;
      throw ConfigError(fmt::format(
          "data prepare: {} ({}) and {} ({}) are one file: choose another name for the tokens",
          json_quote(names[i].path.string()), names[i].what, json_quote(names[j].path.string()), names[j].what));
    }
  }
}

void check_options(const PrepareOptions& options) {
  const double fraction = options.val_fraction.value_or(PrepareOptions::kValFraction);
  if (!(fraction >= 0 && fraction < 1)) {
    throw ConfigError(fmt::format("--val-fraction: expected a number from 0 to below 1, found {}", fraction));
  }
  if (options.val.empty() && options.val_fraction.value_or(0) > 0) {
    throw ConfigError(
        "data prepare: --val-fraction is above 0: expected the name of the held-out token file (--val), found none");
  }
  if (!options.val.empty() && fraction == 0) {
    throw ConfigError("data prepare: --val-fraction 0 holds nothing out: leave --val out, or raise the fraction");
  }
  if (options.inputs.empty()) throw ConfigError("data prepare: expected at least one text file, found none");
  if (std::count(options.inputs.begin(), options.inputs.end(), kStandardInput) > 1) {
    throw ConfigError("data prepare: standard input (-) can be read only once");
  }
  if (options.train.empty())
    throw ConfigError("data prepare: expected the name of the token file to write, found none");
}

std::string names_of(const std::vector<std::filesystem::path>& inputs) {
  std::string names = inputs.front() == kStandardInput ? "standard input" : inputs.front().filename().string();
  if (inputs.size() > 1) names += fmt::format(" and {} more file{}", inputs.size() - 1, inputs.size() == 2 ? "" : "s");
  return names;
}

}  // namespace

PrepareResult prepare(Files& files, const PrepareOptions& options) {
  check_options(options);
  PrepareOptions placed = options;
  placed.train = place_of(files, options.train);
  if (!options.val.empty()) placed.val = place_of(files, options.val);
  check_collisions(placed);
  check_sidecar(files, options.train, placed.train);
  if (!options.val.empty()) check_sidecar(files, options.val, placed.val);
  Text text(files, placed);
  const std::int64_t total = text.size_bytes();
  if (total == 0) {
    const std::size_t inputs = options.inputs.size();
    throw DataError(fmt::format("input {}: expected text, found {}", json_quote(text.name()),
                                inputs == 1 ? "an empty file" : fmt::format("{} empty files", inputs)));
  }
  std::int64_t cut = total;
  if (!options.val.empty()) {
    const double fraction = options.val_fraction.value_or(PrepareOptions::kValFraction);
    const auto val_bytes = static_cast<std::int64_t>(std::llround(static_cast<double>(total) * fraction));
    if (val_bytes < 1 || val_bytes >= total) {
      throw DataError(fmt::format("input {}: {} too few to hold out a fraction of {}. Use more text",
                                  json_quote(text.name()),
                                  total == 1 ? "1 byte is" : fmt::format("{} bytes are", total), fraction));
    }
    cut = find_cut(text, total - val_bytes);
  }

  TokenFileInfo info;
  info.vocab = ByteTokenizer::kVocab;
  info.tokenizer = ByteTokenizer::identity();
  info.source = (options.source.empty() ? names_of(options.inputs) : options.source).substr(0, 1024);
  const auto writer_of = [&](const std::filesystem::path& path, std::int64_t begin, std::int64_t end) {
    TokenFileInfo part = info;
    if (end - begin > options.most_header_tokens) part.layout = TokenLayout::kRaw;
    part.source += fmt::format(", bytes {} to {} of {}", begin, end, total);
    auto writer = std::make_unique<TokenFileWriter>(files, path, part);
    tokenize(text, begin, end, *writer);
    writer->finish();
    return writer;
  };
  // Both are complete before either gets its name.
  const auto train = writer_of(placed.train, 0, cut);
  const auto val = cut < total ? writer_of(placed.val, cut, total) : nullptr;
  train->publish();
  if (val != nullptr) val->publish();
  return {.input_bytes = total,
          .train_tokens = train->info().tokens,
          .val_tokens = val == nullptr ? 0 : val->info().tokens,
          .train = options.train,
          .val = val == nullptr ? std::filesystem::path() : options.val};
}

}  // namespace strake::data
