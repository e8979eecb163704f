// Workers that wait on gRPC's completion queues.
#include "server/completion_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <thread>
#include <vector>

#include "tests/server/queue_workers.h"

namespace hgrn2 {
namespace {

using testing::QueueWorkers;

// Fires on a queue, again and again until it is told to stop. Started by the worker: TSan does not
// see what gRPC's queue orders.
class Ticker final : public CompletionEvent {
 public:
  explicit Ticker(grpc::CompletionQueue* queue) : queue_(queue) {}
  void Start() { Set(); }
  void Happened(bool) override {
    if (++count_ >= last_) {
      done_.set_value();
    } else {
      Set();
    }
  }
  void WaitFor(int n) {
    last_ = n;
    done_.get_future().wait();
  }
  int count() const { return count_; }

 private:
  void Set() {
    alarm_.Set(queue_, gpr_time_0(GPR_CLOCK_MONOTONIC), static_cast<CompletionEvent*>(this));
  }
  grpc::CompletionQueue* const queue_;
  grpc::Alarm alarm_;
  std::atomic<int> count_{0}, last_{1 << 30};
  std::promise<void> done_;
};

TEST(QueueLoopTest, TasksOfManyThreadsRunOnceAndInOrder) {
  constexpr int kThreads = 4, kTasks = 5000, kWorkers = 2;
  std::vector<int> last(kThreads, -1);
  std::atomic<int> out_of_order{0};
  {
    QueueWorkers workers(kWorkers);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kTasks; ++i) {
          workers.pool().Post(t, [&, t, i] {
            if (last[t] != i - 1) ++out_of_order;
            last[t] = i;
          });
          if (i % 100 == 0) std::this_thread::yield();  // the worker falls asleep now and then
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(out_of_order, 0);
  for (const int i : last) EXPECT_EQ(i, kTasks - 1);
}

TEST(QueueLoopTest, ATaskWakesAWorkerThatWaits) {
  QueueWorkers workers(1);
  for (int i = 0; i < 200; ++i) {
    std::promise<void> ran;
    workers.pool().Post(0, [&] { ran.set_value(); });
    ASSERT_EQ(ran.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready) << i;
  }
}

TEST(QueueLoopTest, EventsAreServedWhileTasksKeepComing) {
  std::atomic<bool> stop{false};
  std::function<void()> again;
  QueueWorkers workers(1);
  again = [&] {
    if (!stop) workers.pool().Post(0, again);
  };
  Ticker ticker(workers.queues()[0]);
  workers.pool().Post(0, [&] { ticker.Start(); });
  workers.pool().Post(0, again);
  ticker.WaitFor(100);
  stop = true;
}

TEST(QueueLoopTest, AnEventIsServedByTheWorkersThread) {
  QueueWorkers workers(1);
  struct Event final : CompletionEvent {
    void Happened(bool ok) override {
      this->ok = ok;
      thread.set_value(std::this_thread::get_id());
    }
    bool ok = false;
    std::promise<std::thread::id> thread;
  } event;
  grpc::Alarm alarm;
  std::promise<std::thread::id> worker;
  workers.pool().Post(0, [&] {
    alarm.Set(workers.queues()[0], gpr_time_0(GPR_CLOCK_MONOTONIC),
              static_cast<CompletionEvent*>(&event));
    worker.set_value(std::this_thread::get_id());
  });
  EXPECT_EQ(event.thread.get_future().get(), worker.get_future().get());
  EXPECT_TRUE(event.ok);
}

}  // namespace
}  // namespace hgrn2
