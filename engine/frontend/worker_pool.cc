#include "engine/frontend/worker_pool.h"

#include <utility>

namespace hgrn2 {

WorkerPool::WorkerPool(std::vector<std::unique_ptr<WorkerLoop>> loops) {
  for (auto& loop : loops) {
    workers_.push_back(std::make_unique<Worker>());
    workers_.back()->loop = std::move(loop);
  }
  for (auto& worker : workers_) worker->thread = std::thread(Run, worker.get());
}

WorkerPool::~WorkerPool() {
  for (auto& worker : workers_) {
    {
      MutexLock lock(&worker->mu);
      worker->stop = true;
    }
    worker->loop->Wake();
    worker->thread.join();
  }
}

void WorkerPool::Post(size_t index, Task task) {
  Worker& worker = *workers_[index % workers_.size()];
  bool wake = false;
  {
    MutexLock lock(&worker.mu);
    worker.tasks.push_back(std::move(task));
    wake = std::exchange(worker.waiting, false);
  }
  if (wake) worker.loop->Wake();
}

void WorkerPool::Run(Worker* worker) {
  std::vector<Task> tasks;
  while (true) {
    {
      MutexLock lock(&worker->mu);
      tasks.swap(worker->tasks);
      if (tasks.empty() && worker->stop) return;
      worker->waiting = tasks.empty();
    }
    if (tasks.empty()) {
      worker->loop->Wait();
      continue;
    }
    for (Task& task : tasks) task();
    tasks.clear();
    worker->loop->Poll();
  }
}

}  // namespace hgrn2
