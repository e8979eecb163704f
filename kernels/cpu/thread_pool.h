// Fork-join over a few threads, for phases of a few microseconds.
//
// Not OpenMP: ThreadSanitizer cannot see libgomp's barriers, and a static split waits for whichever
// thread the kernel descheduled. Here items are claimed one by one, and a worker that is asleep or
// descheduled when a phase begins is not waited for: the caller takes its items.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace hgrn2::cpu {

class ThreadPool {
 public:
  // Hands out the items of one phase to one thread.
  class Worker {
   public:
    // In [0, num_threads): index of this thread's scratch memory.
    int index() const { return index_; }
    // Claims the next item; false when none is left.
    bool Next(int* item) {
      *item = next_->fetch_add(1, std::memory_order_relaxed);
      return *item < num_items_;
    }

   private:
    friend class ThreadPool;
    Worker(int index, std::atomic<int>* next, int num_items)
        : next_(next), index_(index), num_items_(num_items) {}
    std::atomic<int>* next_;
    int index_;
    int num_items_;
  };

  // `num_threads` counts the thread that calls Run. >= 1.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls body(worker) on this thread and on those others that are ready; returns when all claimed
  // items are done. The body may never run on some threads. Not reentrant; one caller at a time.
  template <typename Body>
  void Run(int num_items, const Body& body) {
    if (num_items <= 0) return;
    num_items_ = num_items;
    next_.store(0, std::memory_order_relaxed);
    if (num_items == 1 || threads_.empty()) {
      body(Worker(0, &next_, num_items));
      return;
    }
    call_ = [](const void* b, Worker worker) { (*static_cast<const Body*>(b))(worker); };
    body_ = &body;
    Open();
    body(Worker(0, &next_, num_items));
    CloseAndJoin();
  }

  // body(item) for each item in [0, num_items), in any order.
  template <typename Body>
  void ForEach(int num_items, const Body& body) {
    Run(num_items, [&body](Worker worker) {
      int item;
      while (worker.Next(&item)) body(item);
    });
  }

  // Wakes sleeping workers ahead of the first Run of a step.
  void Wake();

 private:
  void Open();
  void CloseAndJoin();
  void WorkerLoop(int index);
  // Waits for a phase that this worker has not seen, and enters it. False when stopping.
  bool Enter(uint64_t* last_epoch);
  void Sleep(uint64_t last_epoch);

  // Gate: bit 0 = a phase is open, bits 1..15 = workers inside, bits 16.. = epoch. Workers enter
  // only while it is open; the caller closes it and waits for those inside. The fields below the
  // gate change only while it is closed and empty.
  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<int> next_{0};
  alignas(64) int num_items_ = 0;
  void (*call_)(const void*, Worker) = nullptr;
  const void* body_ = nullptr;

  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> wake_count_{0};
  std::mutex mu_;
  std::condition_variable cv_;
  std::vector<std::thread> threads_;
};

}  // namespace hgrn2::cpu
