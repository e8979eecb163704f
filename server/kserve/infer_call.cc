#include "server/kserve/infer_call.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "server/convert.h"

namespace hgrn2 {

TimePoint InferDeadline(const grpc::CallbackServerContext& call, const InferRequest& request,
                        const Clock& clock) {
  TimePoint deadline = DeadlineOf(call, clock);
  if (request.timeout_us.has_value()) {
    deadline = std::min(deadline, clock.Now() + std::chrono::microseconds(*request.timeout_us));
  }
  return deadline;
}

void SetUsage(const Usage& usage, inference::ModelInferResponse* out) {
  (*out->mutable_parameters())["prompt_tokens"].set_int64_param(usage.prompt_tokens);
  (*out->mutable_parameters())["completion_tokens"].set_int64_param(usage.completion_tokens);
}

void InferCall::Submit(const grpc::CallbackServerContext& call,
                       const inference::ModelInferRequest& request,
                       std::shared_ptr<CompletionHandler> self) {
  const absl::Status admitted = Admit(call);
  if (!admitted.ok()) return Refuse(admitted);
  absl::StatusOr<InferRequest> native = ToNative(request);
  if (!native.ok()) return Refuse(native.status());
  if (native->stream.value_or(false)) {
    return Refuse(InvalidArgument("stream", "must be false for ModelInfer; use ModelStreamInfer"));
  }
  CompletionRequest& completion = native->completion;
  completion.deadline = InferDeadline(call, *native, *context_.clock);
  if (completion.request_id.empty()) completion.request_id = MakeRequestId();
  record_.SetDeadline(completion.deadline);
  record_.SetRequest(completion.request_id, completion.user);
  shape_ = native->shape;
  results_.resize(shape_.batch);
  auto control = context_.frontend->Generate(std::move(completion), std::move(self));
  if (!control.ok()) return Refuse(control.status());
  control_.Hold(*std::move(control));
}

void InferCall::Append(ChoiceDelta delta) {
  InferResult& result = results_[delta.index];
  result.text += delta.text;
  if (delta.finish_reason.has_value())
    result.finish_reason = FinishReasonName(*delta.finish_reason);
}

void InferCall::Complete(const Usage& usage, const Timing&) {
  ToProto(shape_, std::move(results_), response_);
  SetUsage(usage, response_);
}

}  // namespace hgrn2
