// Takes Generate calls off the port.
#pragma once

#include <grpcpp/completion_queue.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "server/inference_service.h"
#include "server/stream_connection.h"

namespace hgrn2 {

// Its threads submit new calls: validation and tokenization of a long prompt take milliseconds,
// which must not hold up a worker's streams. Thread-safe.
//
// gRPC spreads connections over the queues that calls are asked for on, and offers a connection's
// calls to its own queue first. As each queue belongs to a worker, one worker writes to all streams
// of a connection: in the same order at each step, and without another in its way there.
class GenerateAcceptor {
 public:
  // The queues belong to the server that `service` is registered with. The service outlives this.
  GenerateAcceptor(InferenceService& service, grpc::ServerBuilder* builder);
  ~GenerateAcceptor();

  // Once, when the server has started and listens on `port`.
  void Start(int port);
  // After the server's Shutdown: waits until every call has ended here.
  void Stop();

  // Asks gRPC for one more call on the queue of that number; its further events come to the
  // worker's.
  void RequestCall(size_t queue);
  // The worker of a queue. gRPC's own queue, of its callbacks, is the first to get connections;
  // their calls go to the next queue, which is the first of these. So the first worker has one
  // queue and all others have two.
  size_t WorkerOf(size_t queue) const {
    const size_t workers = service_.context().worker_queues.size();
    return queue < workers ? queue : queue - workers + 1;
  }
  std::shared_ptr<StreamConnection> Join(const std::string& peer) {
    return connections_->Join(peer);
  }
  // A stream that RequestCall made is about to go: gRPC has no further event for it.
  void OnStreamDone();

 private:
  InferenceService& service_;
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues_;
  std::optional<StreamConnections> connections_;
  std::vector<std::thread> threads_;
  Mutex mu_;
  CondVar no_streams_;
  int num_streams_ ABSL_GUARDED_BY(mu_) = 0;   // requested or under way
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;  // no more requests
};

}  // namespace hgrn2
