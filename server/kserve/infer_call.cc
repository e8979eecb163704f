#include "server/kserve/infer_call.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "server/convert.h"
#include "server/grpc_access.h"
#include "server/grpc_status.h"

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

grpc::ServerUnaryReactor* InferCall::Start(const ServiceContext& context,
                                           grpc::CallbackServerContext* call,
                                           const inference::ModelInferRequest& request,
                                           inference::ModelInferResponse* response) {
  auto self = std::make_shared<InferCall>(context, response);
  self->self_ = self;
  self->Submit(*call, request);
  return self.get();
}

void InferCall::Submit(const grpc::CallbackServerContext& call,
                       const inference::ModelInferRequest& request) {
  record_.SetTrace(call);
  const absl::Status access = CheckApiKey(context_.api_keys, call);
  if (!access.ok()) return Refuse(access);
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
  auto control = context_.frontend->Generate(std::move(completion), self_);
  if (!control.ok()) return Refuse(control.status());
  control_.Hold(*std::move(control));
}

void InferCall::Refuse(const absl::Status& status) {
  record_.Done(status);
  Finish(ToGrpcStatus(status));
}

void InferCall::OnDelta(ChoiceDelta delta) {
  if (too_large_) return;
  response_bytes_ += ApproximateBytes(delta);
  if (response_bytes_ > context_.max_response_bytes) {
    too_large_ = true;
    control_.Cancel();
    return;
  }
  InferResult& result = results_[delta.index];
  result.text += delta.text;
  if (delta.finish_reason.has_value())
    result.finish_reason = FinishReasonName(*delta.finish_reason);
}

void InferCall::OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) {
  control_.Release();
  absl::Status end_status = status;
  if (too_large_) {
    end_status = NoRetry(MakeStatus(
        absl::StatusCode::kResourceExhausted,
        "the answer is larger than {} bytes (grpc-max-message-bytes); use ModelStreamInfer",
        context_.max_response_bytes));
  }
  ToProto(shape_, std::move(results_), response_);
  SetUsage(usage, response_);
  record_.Done(end_status, usage, timing);
  Finish(ToGrpcStatus(end_status));
}

void InferCall::OnCancel() {
  if (!record_.AtDeadline()) control_.Cancel();
}

}  // namespace hgrn2
