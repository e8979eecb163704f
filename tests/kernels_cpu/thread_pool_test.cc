#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <time.h>

#include <chrono>
#include <thread>
#include <vector>

#include "kernels/cpu/cpu_info.h"

namespace hgrn2::cpu {
namespace {

TEST(ThreadPoolTest, EveryItemOnceInEveryPhase) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    // Plain ints: the pool's own order must make them visible.
    std::vector<int> hits(97);
    for (int phase = 1; phase <= 3000; ++phase) {
      const int items = phase % 98;
      pool.ForEach(items, [&](int item) { ++hits[item]; });
      pool.ForEach(items, [&](int item) { --hits[item]; });
      for (const int h : hits) ASSERT_EQ(h, 0);
      pool.ForEach(items, [&](int item) { hits[items - 1 - item] += phase; });
      for (int i = 0; i < items; ++i) ASSERT_EQ(hits[i], phase);
      hits.assign(hits.size(), 0);
    }
  }
}

TEST(ThreadPoolTest, WorkersHaveDistinctIndices) {
  ThreadPool pool(4);
  for (int phase = 0; phase < 200; ++phase) {
    std::vector<int> inside(4);
    pool.Run(64, [&](ThreadPool::Worker worker) {
      ASSERT_LT(worker.index(), 4);
      EXPECT_EQ(inside[worker.index()]++, 0);
      int item;
      while (worker.Next(&item)) {
      }
    });
  }
}

TEST(ThreadPoolTest, AllThreadsWork) {
  ThreadPool pool(3);
  // Items that wait for each other: finishes only if three threads take one each.
  std::atomic<int> arrived{0};
  pool.ForEach(3, [&](int) {
    arrived.fetch_add(1);
    while (arrived.load() < 3) std::this_thread::yield();
  });
  EXPECT_EQ(arrived.load(), 3);
}

TEST(ThreadPoolTest, WakesAfterSleep) {
  ThreadPool pool(2);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (i % 2 == 0) pool.Wake();
    std::atomic<int> done{0};
    pool.ForEach(10, [&](int) { done.fetch_add(1); });
    ASSERT_EQ(done.load(), 10);
  }
}

double ProcessCpuSeconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

TEST(ThreadPoolTest, IdleThreadsUseNoCpu) {
  ThreadPool pool(4);
  pool.ForEach(100, [](int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double before = ProcessCpuSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(ProcessCpuSeconds() - before, 0.03);
}

TEST(CpuInfoTest, TheInstructionSetHasAName) { EXPECT_FALSE(IsaName().empty()); }

}  // namespace
}  // namespace hgrn2::cpu
