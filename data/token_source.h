// TokenSource: random access to a long sequence of token ids. TokenFiles is the real one; tests wrap it
// (a throttled or failing source).
// Threads: read() may be called from any one thread at a time.
// Errors: DataError with file and offset; IoError if the system cannot read.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace strake::data {

class TokenSource {
 public:
  virtual ~TokenSource() = default;
  virtual std::int64_t tokens() const = 0;
  // out = tokens [begin, begin + out.size()). Ids are >= 0; whether they fit the model is the loader's check.
  // REQUIRES: in range.
  virtual void read(std::int64_t begin, std::span<std::int32_t> out) = 0;
  // What messages call it: the file's path.
  virtual std::string describe() const = 0;
  // Where messages say that a token is: its file, and its number there.
  struct Place {
    std::string source;
    std::int64_t token;
  };
  virtual Place place_of(std::int64_t token) const { return {describe(), token}; }

  // Whole sequences of `sequence` tokens plus the one token that the last target needs.
  std::int64_t sequences(std::int64_t sequence) const { return tokens() < 1 ? 0 : (tokens() - 1) / sequence; }
};

// DataError naming the first of the tokens [begin, end) whose id is not below `vocab`. REQUIRES: in range.
void require_ids_below(std::int64_t vocab, TokenSource& source, std::int64_t begin, std::int64_t end);
// The same of ids that were read from `begin` on.
void require_ids_below(std::int64_t vocab, const TokenSource& source, std::int64_t begin,
                       std::span<const std::int32_t> ids);

// As source.sequences(sequence); DataError naming the source if there is not one whole sequence.
std::int64_t require_sequences(const TokenSource& source, std::int64_t sequence);

}  // namespace strake::data
