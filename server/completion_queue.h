// gRPC's completion queues as this server uses them: every tag is a CompletionEvent.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/frontend/worker_loop.h"

namespace hgrn2 {

class CompletionEvent {
 public:
  // On a thread that waits on the queue. `ok` as grpc::CompletionQueue::Next.
  virtual void Happened(bool ok) = 0;

 protected:
  ~CompletionEvent() = default;
};

// Waits for the next event and serves it. False once the queue has been shut down and is empty.
bool ServeNext(grpc::CompletionQueue* queue);
// Serves events until that.
void ServeAll(grpc::CompletionQueue* queue);

// A frontend's worker that waits on a completion queue, for the streams it writes to. What it
// writes is then done on its own queue: the callback API wakes another thread for every message,
// which takes 2.5 times the CPU (docs/design.md).
class QueueLoop final : public WorkerLoop, private CompletionEvent {
 public:
  QueueLoop() = default;
  // Serves what is left: events of calls that have ended.
  ~QueueLoop() override;

  grpc::CompletionQueue* queue() { return &queue_; }

  void Wait() override;
  void Poll() override;
  void Wake() override;

 private:
  void Happened(bool) override { waking_ = false; }

  grpc::CompletionQueue queue_;
  grpc::Alarm alarm_;
  std::atomic<bool> waking_{false};  // the alarm's event is on its way: it may not be set again
};

// Loops for a frontend's workers, and their queues in the same order.
std::vector<std::unique_ptr<WorkerLoop>> QueueLoops(int32_t n,
                                                    std::vector<grpc::CompletionQueue*>* queues);

}  // namespace hgrn2
