// Workers that wait on completion queues, as the server's frontend has them.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "engine/frontend/worker_pool.h"
#include "server/completion_queue.h"

namespace hgrn2::testing {

class QueueWorkers {
 public:
  explicit QueueWorkers(int n) : pool_(Loops(n)) {}

  WorkerPool& pool() { return pool_; }
  const std::vector<grpc::CompletionQueue*>& queues() const { return queues_; }

 private:
  std::vector<std::unique_ptr<WorkerLoop>> Loops(int n) {
    std::vector<std::unique_ptr<WorkerLoop>> loops;
    for (int i = 0; i < n; ++i) {
      auto loop = std::make_unique<QueueLoop>();
      queues_.push_back(loop->queue());
      loops.push_back(std::move(loop));
    }
    return loops;
  }

  std::vector<grpc::CompletionQueue*> queues_;
  WorkerPool pool_;
};

}  // namespace hgrn2::testing
