#include "tests/checkpoint/counted_allocation.h"

#include <cstdlib>
#include <new>

static thread_local std::size_t asked_bytes = 0;

#ifndef STRAKE_SANITIZED
void* operator new(std::size_t size) {
  asked_bytes += size;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

namespace strake::test {

std::size_t allocated_bytes() { return asked_bytes; }

}  // namespace strake::test
