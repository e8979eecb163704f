#include "engine/frontend/worker_pool.h"

#include <utility>

namespace hgrn2 {

WorkerPool::WorkerPool(int32_t num_workers) {
  for (int32_t i = 0; i < num_workers; ++i) shards_.push_back(std::make_unique<Shard>());
  for (auto& shard : shards_) shard->thread = std::thread(Run, shard.get());
}

WorkerPool::~WorkerPool() {
  for (auto& shard : shards_) {
    {
      MutexLock lock(&shard->mu);
      shard->stop = true;
    }
    shard->cv.NotifyAll();
    shard->thread.join();
  }
}

void WorkerPool::Post(size_t shard_index, Task task) {
  Shard& shard = *shards_[shard_index % shards_.size()];
  bool wake = false;
  {
    MutexLock lock(&shard.mu);
    shard.tasks.push_back(std::move(task));
    wake = std::exchange(shard.waiting, false);
  }
  if (wake) shard.cv.NotifyOne();
}

void WorkerPool::Run(Shard* shard) {
  std::vector<Task> tasks;
  while (true) {
    {
      MutexLock lock(&shard->mu);
      while (shard->tasks.empty() && !shard->stop) {
        shard->waiting = true;
        shard->cv.Wait(&shard->mu);
        shard->waiting = false;
      }
      if (shard->tasks.empty()) return;
      tasks.swap(shard->tasks);
    }
    for (Task& task : tasks) task();
    tasks.clear();
  }
}

}  // namespace hgrn2
