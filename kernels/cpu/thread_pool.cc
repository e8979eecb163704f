#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <chrono>

#include "hwy/base.h"

namespace hgrn2::cpu {
namespace {

constexpr uint64_t kOpen = 1;
constexpr uint64_t kOneInside = 2;
constexpr uint64_t kInsideMask = 0xFFFE;
constexpr int kEpochShift = 16;

// How long an idle worker polls before it sleeps: longer than the host's work between two steps,
// short enough that an idle server uses no CPU.
constexpr auto kSpinTime = std::chrono::microseconds(100);
constexpr int kSpinsPerClockRead = 64;

inline void Pause() {
#if HWY_ARCH_X86
  __builtin_ia32_pause();
#elif HWY_ARCH_ARM_A64
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this, i] { WorkerLoop(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    stop_.store(true, std::memory_order_seq_cst);
  }
  cv_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void ThreadPool::Wake() {
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  {
    std::lock_guard<std::mutex> lock(mu_);
    wake_count_.fetch_add(1, std::memory_order_relaxed);
  }
  cv_.notify_all();
}

void ThreadPool::Open() {
  const uint64_t epoch = (gate_.load(std::memory_order_relaxed) >> kEpochShift) + 1;
  // seq_cst with Sleep: either the worker sees the open gate or we see the sleeper.
  gate_.store(epoch << kEpochShift | kOpen, std::memory_order_seq_cst);
  Wake();
}

void ThreadPool::CloseAndJoin() {
  uint64_t gate = gate_.fetch_and(~kOpen, std::memory_order_acquire) & ~kOpen;
  for (int spins = 0; (gate & kInsideMask) != 0; ++spins) {
    // A worker that is inside but not running only finishes if it gets a CPU.
    if (spins > 2000) {
      sched_yield();
    } else {
      Pause();
    }
    gate = gate_.load(std::memory_order_acquire);
  }
}

void ThreadPool::WorkerLoop(int index) {
  uint64_t last_epoch = 0;
  while (Enter(&last_epoch)) {
    call_(body_, Worker(index, &next_, num_items_));
    gate_.fetch_sub(kOneInside, std::memory_order_release);
  }
}

bool ThreadPool::Enter(uint64_t* last_epoch) {
  auto spin_until = std::chrono::steady_clock::now() + kSpinTime;
  for (int spins = 1;; ++spins) {
    uint64_t gate = gate_.load(std::memory_order_relaxed);
    while ((gate & kOpen) != 0 && gate >> kEpochShift != *last_epoch) {
      if (gate_.compare_exchange_weak(gate, gate + kOneInside, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        *last_epoch = gate >> kEpochShift;
        return true;
      }
    }
    if (stop_.load(std::memory_order_relaxed)) return false;
    Pause();
    if (spins % kSpinsPerClockRead == 0 && std::chrono::steady_clock::now() > spin_until) {
      Sleep(*last_epoch);
      spin_until = std::chrono::steady_clock::now() + kSpinTime;
    }
  }
}

void ThreadPool::Sleep(uint64_t last_epoch) {
  std::unique_lock<std::mutex> lock(mu_);
  const uint64_t wake_count = wake_count_.load(std::memory_order_relaxed);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  cv_.wait(lock, [&] {
    const uint64_t gate = gate_.load(std::memory_order_seq_cst);
    return stop_.load(std::memory_order_seq_cst) ||
           ((gate & kOpen) != 0 && gate >> kEpochShift != last_epoch) ||
           wake_count_.load(std::memory_order_relaxed) != wake_count;
  });
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace hgrn2::cpu
