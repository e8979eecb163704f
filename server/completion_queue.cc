#include "server/completion_queue.h"

#include "server/stream_connection.h"

namespace hgrn2 {

bool ServeNext(grpc::CompletionQueue* queue) {
  void* tag = nullptr;
  bool ok = false;
  if (!queue->Next(&tag, &ok)) return false;
  static_cast<CompletionEvent*>(tag)->Happened(ok);
  return true;
}

QueueLoop::~QueueLoop() {
  alarm_.Cancel();
  queue_.Shutdown();
  while (ServeNext(&queue_)) {
  }
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

}  // namespace hgrn2
