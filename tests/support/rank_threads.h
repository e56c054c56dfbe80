// run_ranks: runs a function as every rank of a ThreadsWorld, each on a thread of its own.
//
// A rank that throws marks itself as failed, so that the others do not wait for it, and run_ranks rethrows
// what was thrown first. (What `rank_main` holds is destroyed before that: a stream that drains in there may
// still wait for peers; call Control::abort first where that can happen.)
#pragma once

#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/threads/threads_world.h"

namespace strake::test {

inline void run_ranks(comm::ThreadsWorld& world, const std::function<void(int rank)>& rank_main) {
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world.size(); ++rank) {
    threads.emplace_back([&, rank] {
      try {
        rank_main(rank);
      } catch (const std::exception& error) {
        {
          const std::lock_guard lock(mutex);
          if (first == nullptr) first = std::current_exception();
        }
        world.fail(rank, error.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first != nullptr) std::rethrow_exception(first);
}

}  // namespace strake::test
