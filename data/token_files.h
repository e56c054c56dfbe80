// TokenFiles: one or many token files, read as one stream of tokens in their order.
//
// Where one file ends and the next begins means nothing: a sequence may begin in one and end in the next, so that
// however a stream is cut into files, the same tokens train in the same order.
// Threads: as TokenFile. Errors: as TokenFile, naming the file and the number of the token in it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/token_file.h"

namespace strake::data {

// Paths and patterns as a user writes them, to paths. What exists under its name is meant; else `*`, `?` and `[...]`
// match names (glob(7)), sorted so that part-2 comes before part-10, sidecars left out; what matches nothing is a
// DataError. So is a file that stands twice.
std::vector<std::filesystem::path> find_token_files(std::span<const std::string> names);

class TokenFiles final : public TokenSource {
 public:
  // `raw_type`: see TokenFile. DataError also if their tokenizers differ. REQUIRES: at least one path.
  explicit TokenFiles(const std::vector<std::filesystem::path>& paths,
                      std::optional<TokenType> raw_type = std::nullopt);

  std::int64_t tokens() const override { return begins_.back(); }
  void read(std::int64_t begin, std::span<std::int32_t> out) override;
  // The path, or the first and how many more.
  std::string describe() const override;
  Place place_of(std::int64_t token) const override;

  std::size_t size() const { return files_.size(); }
  const TokenFile& file(std::size_t index) const { return *files_[index]; }

  // Every id is below it in those files that tell; 0: none does.
  std::int64_t vocab() const;
  // The file that says vocab().
  const TokenFile& file_of_vocab() const;
  // Not known if no file tells.
  const TokenizerIdentity& tokenizer() const { return tokenizer_; }
  // TokenFile::require_sampled_ids_below of the files that do not tell their vocabulary.
  void require_sampled_ids_below(std::int64_t vocab);

 private:
  std::size_t index_of(std::int64_t token) const;

  std::vector<std::unique_ptr<TokenFile>> files_;
  std::vector<std::int64_t> begins_{0};  // of each file in the stream, and the end of the last
  TokenizerIdentity tokenizer_;
};

}  // namespace strake::data
