#include "data/token_files.h"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <cctype>
#include <system_error>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::data {
namespace {

namespace fs = std::filesystem;

bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

// As people count: runs of digits are numbers.
bool comes_before(std::string_view a, std::string_view b) {
  const std::string_view whole_a = a, whole_b = b;
  while (!a.empty() && !b.empty()) {
    if (!is_digit(a.front()) || !is_digit(b.front())) {
      if (a.front() != b.front()) return static_cast<unsigned char>(a.front()) < static_cast<unsigned char>(b.front());
      a.remove_prefix(1), b.remove_prefix(1);
      continue;
    }
    const auto take_number = [](std::string_view& text) {
      std::size_t end = 0;
      while (end < text.size() && is_digit(text[end])) ++end;
      std::string_view number = text.substr(0, end);
      text.remove_prefix(end);
      number.remove_prefix(std::min(number.find_first_not_of('0'), number.size()));
      return number;
    };
    const std::string_view number_a = take_number(a), number_b = take_number(b);
    if (number_a.size() != number_b.size()) return number_a.size() < number_b.size();
    if (number_a != number_b) return number_a < number_b;
  }
  if (a.empty() != b.empty()) return a.empty();
  return whole_a < whole_b;  // 01 and 1: any order, but always the same
}

std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t found{};
  const int result = ::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found);
  std::vector<std::string> names;
  for (std::size_t i = 0; result == 0 && i < found.gl_pathc; ++i) names.emplace_back(found.gl_pathv[i]);
  ::globfree(&found);
  std::erase_if(names, [&](const std::string& name) {  // the sidecar of a file is not another file
    std::error_code ignored;
    return name.ends_with(".json") && fs::exists(name.substr(0, name.size() - 5), ignored);
  });
  std::sort(names.begin(), names.end(), comes_before);
  return names;
}

}  // namespace

std::vector<fs::path> find_token_files(std::span<const std::string> names) {
  std::vector<fs::path> paths;
  for (const std::string& name : names) {
    std::error_code ignored;
    if (name.find_first_of("*?[") == std::string::npos || fs::exists(name, ignored)) {
      paths.emplace_back(name);
      continue;
    }
    const std::vector<std::string> matches = matches_of(name);
    if (matches.empty()) {
      throw DataError(fmt::format(
          "token files {}: no file has such a name. Check the pattern, or make token files with `strake data "
          "prepare`",
          json_quote(name)));
    }
    paths.insert(paths.end(), matches.begin(), matches.end());
  }
  std::vector<fs::path> sorted = paths;
  for (fs::path& path : sorted) path = fs::absolute(path).lexically_normal();
  std::sort(sorted.begin(), sorted.end());
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
    throw DataError(fmt::format("token file {}: is named twice. Name it once", json_quote(twice->string())));
  }
  return paths;
}

TokenFiles::TokenFiles(const std::vector<fs::path>& paths, std::optional<TokenType> raw_type) {
  STRAKE_CHECK(!paths.empty(), "token files are at least one");
  const TokenFile* teller = nullptr;
  for (const fs::path& path : paths) {
    const TokenFile& file = *files_.emplace_back(std::make_unique<TokenFile>(path, raw_type));
    begins_.push_back(begins_.back() + file.tokens());
    if (!file.info().tokenizer.known()) continue;
    if (teller == nullptr) {
      teller = &file;
      tokenizer_ = file.info().tokenizer;
    } else if (file.info().tokenizer != tokenizer_) {
      throw DataError(fmt::format("token file {}: was made by tokenizer {}, {} by {}. Prepare all with one tokenizer",
                                  json_quote(path.string()), describe_tokenizer(file.info().tokenizer),
                                  json_quote(teller->describe()), describe_tokenizer(tokenizer_)));
    }
  }
}

std::size_t TokenFiles::index_of(std::int64_t token) const {
  const auto next = std::upper_bound(begins_.begin(), begins_.end() - 1, token);
  return static_cast<std::size_t>(next - begins_.begin()) - 1;
}

void TokenFiles::read(std::int64_t begin, std::span<std::int32_t> out) {
  STRAKE_CHECK(begin >= 0 && begin <= tokens() && static_cast<std::int64_t>(out.size()) <= tokens() - begin,
               "read beyond the end of " + describe());
  for (std::size_t index = index_of(begin); !out.empty(); ++index) {
    const std::int64_t count = std::min(static_cast<std::int64_t>(out.size()), begins_[index + 1] - begin);
    files_[index]->read(begin - begins_[index], out.first(static_cast<std::size_t>(count)));
    out = out.subspan(static_cast<std::size_t>(count));
    begin += count;
  }
}

std::string TokenFiles::describe() const {
  const std::string first = files_.front()->describe();
  return files_.size() == 1 ? first : fmt::format("{} and {} more", first, files_.size() - 1);
}

TokenSource::Place TokenFiles::place_of(std::int64_t token) const {
  const std::size_t index = index_of(token);
  return {files_[index]->describe(), token - begins_[index]};
}

std::int64_t TokenFiles::vocab() const { return file_of_vocab().info().vocab; }

const TokenFile& TokenFiles::file_of_vocab() const {
  return **std::max_element(files_.begin(), files_.end(),
                            [](const auto& a, const auto& b) { return a->info().vocab < b->info().vocab; });
}

void TokenFiles::require_sampled_ids_below(std::int64_t vocab) {
  for (const auto& file : files_) {
    if (file->info().vocab == 0) file->require_sampled_ids_below(vocab);
  }
}

}  // namespace strake::data
