// Takes Generate calls off the port.
#pragma once

#include <grpcpp/completion_queue.h>

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
class GenerateAcceptor {
 public:
  // `queue` belongs to the server that `service` is registered with. The service outlives this.
  GenerateAcceptor(InferenceService& service, std::unique_ptr<grpc::ServerCompletionQueue> queue);
  ~GenerateAcceptor();

  // Once, when the server has started and listens on `port`.
  void Start(int port);
  // After the server's Shutdown: waits until every call has ended here.
  void Stop();

  // Asks gRPC for one more call, whose events but the first come to a worker's queue, in turn.
  void RequestCall();
  std::shared_ptr<StreamConnection> Join(const std::string& peer) {
    return connections_->Join(peer);
  }
  // A stream that RequestCall made is about to go: gRPC has no further event for it.
  void OnStreamDone();

 private:
  InferenceService& service_;
  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::optional<StreamConnections> connections_;
  std::vector<std::thread> threads_;
  Mutex mu_;
  size_t next_worker_ ABSL_GUARDED_BY(mu_) = 0;
  CondVar no_streams_;
  int num_streams_ ABSL_GUARDED_BY(mu_) = 0;   // requested or under way
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;  // no more requests
};

}  // namespace hgrn2
