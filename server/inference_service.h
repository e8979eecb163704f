// hgrn2.v1.Inference over a Frontend.
#pragma once

#include <hgrn2/v1/inference.grpc.pb.h>

#include "absl/functional/function_ref.h"
#include "server/rpc_call.h"

namespace hgrn2 {

// Generate is asynchronous (GenerateAcceptor), the rest callbacks on gRPC's threads.
using InferenceMethods = v1::Inference::WithAsyncMethod_Generate<
    v1::Inference::WithCallbackMethod_Complete<v1::Inference::WithCallbackMethod_Score<
        v1::Inference::WithCallbackMethod_Tokenize<v1::Inference::WithCallbackMethod_Detokenize<
            v1::Inference::WithCallbackMethod_GetModel<v1::Inference::Service>>>>>>;

class InferenceService final : public InferenceMethods {
 public:
  // `context.active_calls` is set by the service.
  explicit InferenceService(ServiceContext context);

  // With the active calls, for services beside this one.
  const ServiceContext& context() const { return context_; }

  // Waits until every call's last message is sent. False if some are left after `timeout`.
  bool WaitUntilIdle(Duration timeout) { return active_calls_.WaitForNone(timeout); }
  // Waits until no generating or scoring call has come for `quiet`, at most `timeout`.
  void WaitUntilQuiet(Duration quiet, Duration timeout) {
    active_calls_.WaitForQuiet(quiet, timeout);
  }

  grpc::ServerUnaryReactor* Complete(grpc::CallbackServerContext* call,
                                     const v1::GenerateRequest* request,
                                     v1::CompleteResponse* response) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* call,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* call,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* call,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

 private:
  absl::Status DoTokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse* response);
  absl::Status DoDetokenize(const v1::DetokenizeRequest& request, v1::DetokenizeResponse* response);
  absl::Status DoGetModel(const v1::GetModelRequest& request, v1::GetModelResponse* response);
  // Answers a call that needs no engine.
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* call, const char* method,
                                   absl::FunctionRef<absl::Status()> answer);

  ActiveCalls active_calls_;
  const ServiceContext context_;
};

}  // namespace hgrn2
