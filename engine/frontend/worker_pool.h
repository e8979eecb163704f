// A few threads, each with its own queue of tasks. Tasks posted to one worker run one after the
// other in order; Post never blocks on them. Thread-safe.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "engine/frontend/worker_loop.h"

namespace hgrn2 {

class WorkerPool {
 public:
  using Task = std::function<void()>;

  // A worker for each loop.
  explicit WorkerPool(std::vector<std::unique_ptr<WorkerLoop>> loops);
  // Runs what is queued, then stops.
  ~WorkerPool();

  size_t size() const { return workers_.size(); }
  // `worker` counts modulo size().
  void Post(size_t worker, Task task);

 private:
  struct Worker {
    std::unique_ptr<WorkerLoop> loop;
    Mutex mu;
    std::vector<Task> tasks ABSL_GUARDED_BY(mu);
    bool waiting ABSL_GUARDED_BY(mu) = false;
    bool stop ABSL_GUARDED_BY(mu) = false;
    std::thread thread;
  };
  static void Run(Worker* worker);

  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace hgrn2
