// ModelInfer: a batch of completions, answered once. Lifetime as CompleteCall's.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <vector>

#include "engine/frontend/frontend.h"
#include "server/kserve/infer_request.h"
#include "server/rpc_call.h"

namespace hgrn2 {

class InferCall final : public grpc::ServerUnaryReactor, public CompletionHandler {
 public:
  static grpc::ServerUnaryReactor* Start(const ServiceContext& context,
                                         grpc::CallbackServerContext* call,
                                         const inference::ModelInferRequest& request,
                                         inference::ModelInferResponse* response);

  InferCall(const ServiceContext& context, inference::ModelInferResponse* response)
      : context_(context),
        lease_(context.active_calls),
        record_(context, "ModelInfer"),
        response_(response) {}

  // CompletionHandler
  void OnDelta(ChoiceDelta delta) override;
  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override;

  // ServerUnaryReactor
  void OnCancel() override;
  void OnDone() override {
    lease_.Release();
    self_.reset();
  }

 private:
  void Submit(const grpc::CallbackServerContext& call, const inference::ModelInferRequest& request);
  void Refuse(const absl::Status& status);

  const ServiceContext& context_;
  ActiveCalls::Lease lease_;
  CallRecord record_;
  ControlHolder control_;
  inference::ModelInferResponse* const response_;  // gRPC's, until Finish
  InferShape shape_;
  std::vector<InferResult> results_;
  int64_t response_bytes_ = 0;
  bool too_large_ = false;
  std::shared_ptr<InferCall> self_;
};

// The earlier of the call's deadline and the request's own time-out.
TimePoint InferDeadline(const grpc::CallbackServerContext& call, const InferRequest& request,
                        const Clock& clock);
// prompt_tokens and completion_tokens of the whole batch, as parameters.
void SetUsage(const Usage& usage, inference::ModelInferResponse* out);

}  // namespace hgrn2
