// The unary calls of the Inference service that run on the engine: Complete and Score.
#pragma once

#include <hgrn2/v1/inference.pb.h>

#include <memory>
#include <vector>

#include "server/unary_call.h"

namespace hgrn2 {

class CompleteCall final : public CompletionCall {
 public:
  CompleteCall(const ServiceContext& context, v1::CompleteResponse* response)
      : CompletionCall(context, "Complete", "the streaming Generate"), response_(response) {}

  // For Launch.
  void Submit(const grpc::CallbackServerContext& call, const v1::GenerateRequest& request,
              std::shared_ptr<CompletionHandler> self);

 private:
  void Append(ChoiceDelta delta) override;
  void Complete(const Usage& usage, const Timing& timing) override;

  v1::CompleteResponse* const response_;  // gRPC's, until Finish
};

class ScoreCall final : public UnaryCall, public ScoreHandler {
 public:
  ScoreCall(const ServiceContext& context, v1::ScoreResponse* response)
      : UnaryCall(context, "Score"), response_(response) {}

  // For Launch.
  void Submit(const grpc::CallbackServerContext& call, const v1::ScoreRequest& request,
              std::shared_ptr<ScoreHandler> self);

  using UnaryCall::OnDone;
  // ScoreHandler
  void OnDone(const absl::Status& status, std::vector<ContinuationResult> results,
              const Usage& usage) override;

 private:
  v1::ScoreResponse* const response_;  // gRPC's, until Finish
};

}  // namespace hgrn2
