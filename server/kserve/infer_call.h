// ModelInfer: a batch of completions, answered once.
#pragma once

#include <memory>
#include <vector>

#include "server/kserve/infer_request.h"
#include "server/unary_call.h"

namespace hgrn2 {

class InferCall final : public CompletionCall {
 public:
  InferCall(const ServiceContext& context, inference::ModelInferResponse* response)
      : CompletionCall(context, "ModelInfer", "ModelStreamInfer"), response_(response) {}

  // For Launch.
  void Submit(const grpc::CallbackServerContext& call, const inference::ModelInferRequest& request,
              std::shared_ptr<CompletionHandler> self);

 private:
  void Append(ChoiceDelta delta) override;
  void Complete(const Usage& usage, const Timing& timing) override;

  inference::ModelInferResponse* const response_;  // gRPC's, until Finish
  InferShape shape_;
  std::vector<InferResult> results_;
};

// The earlier of the call's deadline and the request's own time-out.
TimePoint InferDeadline(const grpc::CallbackServerContext& call, const InferRequest& request,
                        const Clock& clock);
// prompt_tokens and completion_tokens of the whole batch, as parameters.
void SetUsage(const Usage& usage, inference::ModelInferResponse* out);

}  // namespace hgrn2
