// Calls of hgrn2.v1.Inference/Generate on a completion queue.
#pragma once

#include <grpcpp/grpcpp.h>
#include <hgrn2/v1/inference.grpc.pb.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "client/connection.h"
#include "client/load/transport.h"

namespace hgrn2::client {

class GrpcTransport : public Transport {
 public:
  // `base`: model and sampling parameters of every request.
  GrpcTransport(ConnectionOptions connection, v1::GenerateRequest base);
  ~GrpcTransport() override;

  absl::Status Connect(int connections, int expected) override;
  int NextTarget() override;
  void Start(int target, const CallRequest& request, CallEvents* events) override;
  void CancelAll() override;
  void Run() override;
  void Shutdown() override { queue_.Shutdown(); }

 private:
  struct Call;
  struct Target {
    std::vector<std::unique_ptr<v1::Inference::Stub>> stubs;  // one per connection
    std::atomic<uint64_t> next_stub{0};
  };

  void OnEvent(Call* call, bool ok);
  bool DeliverPart(Call* call);
  void Finish(Call* call);

  const ConnectionOptions connection_;
  const v1::GenerateRequest base_;
  grpc::CompletionQueue queue_;
  std::vector<std::unique_ptr<Target>> targets_;
  std::atomic<uint64_t> next_target_{0};

  std::mutex mu_;
  std::unordered_set<Call*> calls_;  // in flight; guarded by mu_
};

}  // namespace hgrn2::client
