// Workers that wait on completion queues, as the server's frontend has them.
#pragma once

#include <vector>

#include "engine/frontend/worker_pool.h"
#include "server/completion_queue.h"

namespace hgrn2::testing {

class QueueWorkers {
 public:
  explicit QueueWorkers(int n) : pool_(QueueLoops(n, &queues_)) {}

  WorkerPool& pool() { return pool_; }
  const std::vector<grpc::CompletionQueue*>& queues() const { return queues_; }

 private:
  std::vector<grpc::CompletionQueue*> queues_;
  WorkerPool pool_;
};

}  // namespace hgrn2::testing
