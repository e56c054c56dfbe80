#include "tests/checkpoint/counted_allocation.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

static thread_local std::size_t asked_bytes = 0;
static std::atomic<std::size_t> had_bytes{0};

#ifndef STRAKE_SANITIZED
void* operator new(std::size_t size) {
  asked_bytes += size;
  if (void* memory = std::malloc(size)) {
    had_bytes.fetch_add(::malloc_usable_size(memory), std::memory_order_relaxed);
    return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  had_bytes.fetch_sub(::malloc_usable_size(memory), std::memory_order_relaxed);
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
#endif

namespace strake::test {

std::size_t allocated_bytes() { return asked_bytes; }
std::size_t live_bytes() { return had_bytes.load(std::memory_order_relaxed); }

}  // namespace strake::test
