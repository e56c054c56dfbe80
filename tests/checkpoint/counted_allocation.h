// Counts what this program asks of the heap, for tests of what hostile input may cost, and of what is left behind.
// Sanitizers keep their own allocator: there it counts nothing.
#pragma once

#include <cstddef>

namespace strake::test {

// Bytes that the calling thread has asked for so far.
std::size_t allocated_bytes();
// Bytes that all threads have, as the allocator rounds them.
std::size_t live_bytes();

}  // namespace strake::test
