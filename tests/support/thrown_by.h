// thrown_by<DataError>(call): the message of the DataError that `call` throws; "nothing" if it returns. Other errors
// pass through.
#pragma once

#include <string>

namespace strake::test {

template <typename Expected, typename Call>
std::string thrown_by(Call&& call) {
  try {
    call();
  } catch (const Expected& error) {
    return error.what();
  }
  return "nothing";
}

}  // namespace strake::test
