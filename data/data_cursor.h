// DataCursor: the complete state of a run's data loading, as kept in a checkpoint.
//
// Sample order is a pure function of (seed, sample index), so the state is one index and what makes it mean
// the same on resume: the seed, the sequence length, and the identity of the files. World size and micro-batch are not
// part of it: they may change.
// Threads: a value. Errors: DataError.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_files.h"

namespace strake::data {

struct DataCursor {
  struct File {
    std::string path;  // for messages only: a file may move
    std::int64_t tokens = 0;
    std::optional<std::uint32_t> crc32c;  // nullopt: not known

    bool operator==(const File&) const = default;
  };

  std::uint64_t seed = 0;        // of SampleOrder
  std::int64_t next_sample = 0;  // global index of the first sample not consumed
  std::int64_t sequence = 0;     // tokens a sequence
  std::vector<File> files;       // in the order of the stream; at least one
  TokenizerIdentity tokenizer;

  bool operator==(const DataCursor&) const = default;
};

DataCursor make_cursor(const TokenFiles& files, std::uint64_t seed, std::int64_t sequence, std::int64_t next_sample);

// Opaque to checkpoint/. Pinned: version 1 for one file, which earlier programs read too, 2 for several.
std::string to_json(const DataCursor& cursor);
// Throws DataError saying what is malformed.
DataCursor cursor_from_json(std::string_view json);

// May a run with `now` continue where `saved` was? Throws DataError listing everything that differs; next_sample
// and paths may. A checksum or a tokenizer that one side does not know is not compared.
void require_same_data(const DataCursor& saved, const DataCursor& now);
// May a run with `now` start from weights that were trained elsewhere on ids of tokenizer `saved`? DataError if both
// tokenizers are known and differ; hashes count where both are known.
void require_same_tokenizer(const TokenizerIdentity& saved, const DataCursor& now);

}  // namespace strake::data
