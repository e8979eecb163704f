// A few threads, each with its own queue of tasks. Tasks posted to one shard run one after the
// other in order; Post never blocks on them. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace hgrn2 {

class WorkerPool {
 public:
  using Task = std::function<void()>;

  explicit WorkerPool(int32_t num_workers);
  // Runs what is queued, then stops.
  ~WorkerPool();

  size_t size() const { return shards_.size(); }
  void Post(size_t shard, Task task);

 private:
  struct Shard {
    Mutex mu;
    CondVar cv;
    std::vector<Task> tasks ABSL_GUARDED_BY(mu);
    bool waiting ABSL_GUARDED_BY(mu) = false;
    bool stop ABSL_GUARDED_BY(mu) = false;
    std::thread thread;
  };
  static void Run(Shard* shard);

  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace hgrn2
