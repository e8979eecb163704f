#include "server/completion_queue.h"

#include <utility>

#include "server/stream_connection.h"

namespace hgrn2 {

bool ServeNext(grpc::CompletionQueue* queue) {
  void* tag = nullptr;
  bool ok = false;
  if (!queue->Next(&tag, &ok)) return false;
  static_cast<CompletionEvent*>(tag)->Happened(ok);
  return true;
}

void ServeAll(grpc::CompletionQueue* queue) {
  while (ServeNext(queue)) {
  }
}

QueueLoop::~QueueLoop() {
  alarm_.Cancel();
  queue_.Shutdown();
  ServeAll(&queue_);
}

void QueueLoop::Wait() {
  PacketBatch::Begin();
  ServeNext(&queue_);
  PacketBatch::Flush();
}

void QueueLoop::Poll() {
  PacketBatch::Flush();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.AsyncNext(&tag, &ok, gpr_time_0(GPR_CLOCK_MONOTONIC)) ==
         grpc::CompletionQueue::GOT_EVENT) {
    static_cast<CompletionEvent*>(tag)->Happened(ok);
  }
  PacketBatch::Flush();
}

void QueueLoop::Wake() {
  if (waking_.exchange(true)) return;
  alarm_.Set(&queue_, gpr_time_0(GPR_CLOCK_MONOTONIC), static_cast<CompletionEvent*>(this));
}

std::vector<std::unique_ptr<WorkerLoop>> QueueLoops(int32_t n,
                                                    std::vector<grpc::CompletionQueue*>* queues) {
  std::vector<std::unique_ptr<WorkerLoop>> loops;
  for (int32_t i = 0; i < n; ++i) {
    auto loop = std::make_unique<QueueLoop>();
    queues->push_back(loop->queue());
    loops.push_back(std::move(loop));
  }
  return loops;
}

}  // namespace hgrn2
