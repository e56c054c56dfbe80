// FailingSource: a source with a bad spot: every read that covers one token fails, as on a damaged disk.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>

#include "data/token_source.h"
#include "runtime/base/error.h"

namespace strake::test {

class FailingSource final : public data::TokenSource {
 public:
  // `inner` outlives this source.
  FailingSource(data::TokenSource& inner, std::int64_t bad_token) : inner_(inner), bad_token_(bad_token) {}

  std::int64_t tokens() const override { return inner_.tokens(); }
  void read(std::int64_t begin, std::span<std::int32_t> out) override {
    if (begin <= bad_token_ && bad_token_ < begin + static_cast<std::int64_t>(out.size())) {
      throw IoError(describe() + ": cannot read token " + std::to_string(bad_token_) + ": Input/output error",
                    describe(), EIO);
    }
    inner_.read(begin, out);
  }
  std::string describe() const override { return inner_.describe(); }

 private:
  data::TokenSource& inner_;
  std::int64_t bad_token_;
};

}  // namespace strake::test
