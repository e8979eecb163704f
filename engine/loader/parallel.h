// Work on big arrays at start-up, on every CPU the process may use.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/host.h"

namespace hgrn2 {

// Runs fn(0) ... fn(count - 1), each once, in any order, on several threads; returns when all have
// ended. fn must be safe to call concurrently and must not throw.
template <typename Fn>
void ParallelFor(int64_t count, const Fn& fn) {
  static const int64_t max_threads = std::min(NumUsableCpus(), 32);  // it reads files
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) fn(i);
  };
  std::vector<std::thread> threads;
  for (int64_t t = 1; t < std::min(max_threads, count); ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace hgrn2
