#include "server/generate_acceptor.h"

#include <algorithm>
#include <utility>

#include "base/host.h"
#include "server/completion_queue.h"
#include "server/generate_stream.h"

namespace hgrn2 {

GenerateAcceptor::GenerateAcceptor(InferenceService& service, grpc::ServerBuilder* builder)
    : service_(service) {
  const size_t queues = 2 * service.context().worker_queues.size() - 1;  // WorkerOf
  for (size_t i = 0; i < queues; ++i) queues_.push_back(builder->AddCompletionQueue());
}

GenerateAcceptor::~GenerateAcceptor() { Stop(); }

void GenerateAcceptor::Start(int port) {
  connections_.emplace(port);
  // As many as gRPC has for its callbacks; two to a queue, for a prompt may be long.
  const int threads = std::clamp(NumUsableCpus() / 2, 2, 16),
            to_queue = std::max(2, threads / static_cast<int>(queues_.size()));
  for (size_t queue = 0; queue < queues_.size(); ++queue) {
    for (int i = 0; i < to_queue; ++i) {
      threads_.emplace_back([this, queue] { ServeAll(queues_[queue].get()); });
    }
    for (int i = 0; i < 2 * to_queue; ++i) RequestCall(queue);
  }
}

void GenerateAcceptor::Stop() {
  {
    MutexLock lock(&mu_);
    if (std::exchange(stopped_, true)) return;
    while (num_streams_ > 0) no_streams_.Wait(&mu_);
  }
  for (const auto& queue : queues_) queue->Shutdown();
  for (std::thread& thread : threads_) thread.join();
  for (const auto& queue : queues_) ServeAll(queue.get());  // if Start was never called
}

void GenerateAcceptor::RequestCall(size_t queue) {
  MutexLock lock(&mu_);
  if (stopped_) return;
  ++num_streams_;
  auto stream = std::make_shared<GenerateStream>(service_.context(), *this, queue);
  stream->Request(&service_, service_.context().worker_queues[WorkerOf(queue)],
                  queues_[queue].get());
}

void GenerateAcceptor::OnStreamDone() {
  MutexLock lock(&mu_);
  if (--num_streams_ == 0) no_streams_.NotifyAll();
}

}  // namespace hgrn2
