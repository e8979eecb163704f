#include "server/generate_acceptor.h"

#include <algorithm>
#include <utility>

#include "base/host.h"
#include "server/completion_queue.h"
#include "server/generate_stream.h"

namespace hgrn2 {

GenerateAcceptor::GenerateAcceptor(InferenceService& service,
                                   std::unique_ptr<grpc::ServerCompletionQueue> queue)
    : service_(service), queue_(std::move(queue)) {}

GenerateAcceptor::~GenerateAcceptor() { Stop(); }

void GenerateAcceptor::Start(int port) {
  connections_.emplace(port);
  // As many as gRPC has for its callbacks.
  const int threads = std::clamp(NumUsableCpus() / 2, 2, 16);
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { ServeAll(queue_.get()); });
  }
  for (int i = 0; i < 2 * threads; ++i) RequestCall();
}

void GenerateAcceptor::Stop() {
  {
    MutexLock lock(&mu_);
    if (std::exchange(stopped_, true)) return;
    while (num_streams_ > 0) no_streams_.Wait(&mu_);
  }
  queue_->Shutdown();
  for (std::thread& thread : threads_) thread.join();
  ServeAll(queue_.get());  // if Start was never called
}

void GenerateAcceptor::RequestCall() {
  const auto& queues = service_.context().worker_queues;
  MutexLock lock(&mu_);
  if (stopped_) return;
  const size_t worker = next_worker_++;
  ++num_streams_;
  auto stream = std::make_shared<GenerateStream>(service_.context(), *this, worker);
  stream->Request(&service_, queues[worker % queues.size()], queue_.get());
}

void GenerateAcceptor::OnStreamDone() {
  MutexLock lock(&mu_);
  if (--num_streams_ == 0) no_streams_.NotifyAll();
}

}  // namespace hgrn2
