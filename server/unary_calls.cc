#include "server/unary_calls.h"

#include <utility>

#include "base/status.h"
#include "server/convert.h"
#include "server/grpc_access.h"
#include "server/grpc_status.h"

namespace hgrn2 {

grpc::ServerUnaryReactor* CompleteCall::Start(const ServiceContext& context,
                                              grpc::CallbackServerContext* call,
                                              const v1::GenerateRequest& request,
                                              v1::CompleteResponse* response) {
  auto self = std::make_shared<CompleteCall>(context, response);
  self->self_ = self;
  self->Submit(*call, request);
  return self.get();
}

void CompleteCall::Submit(const grpc::CallbackServerContext& call,
                          const v1::GenerateRequest& request) {
  record_.SetTrace(call);
  absl::Status access = CheckApiKey(context_.api_keys, call);
  if (!access.ok()) return Refuse(access);
  absl::StatusOr<CompletionRequest> native = ToNative(v1::GenerateRequest(request));
  if (!native.ok()) return Refuse(native.status());
  native->deadline = DeadlineOf(call, *context_.clock);
  if (native->request_id.empty()) native->request_id = MakeRequestId();
  record_.SetDeadline(native->deadline);
  record_.SetRequest(native->request_id, native->user);
  response_->set_request_id(native->request_id);
  response_->set_model(context_.model.name());
  auto control = context_.frontend->Generate(*std::move(native), self_);
  if (!control.ok()) return Refuse(control.status());
  control_.Hold(*std::move(control));
}

void CompleteCall::Refuse(const absl::Status& status) {
  record_.Done(status);
  Finish(ToGrpcStatus(status));
}

void CompleteCall::OnDelta(ChoiceDelta delta) {
  if (too_large_) return;
  response_bytes_ += ApproximateBytes(delta);
  if (response_bytes_ > context_.max_response_bytes) {
    too_large_ = true;
    control_.Cancel();
    return;
  }
  while (response_->choices_size() <= delta.index) {
    response_->add_choices()->set_index(response_->choices_size() - 1);
  }
  v1::ChoiceDelta* const choice = response_->mutable_choices(delta.index);
  AppendTo(std::move(delta), choice);
}

void CompleteCall::OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) {
  control_.Release();
  absl::Status end_status = status;
  if (too_large_) {
    end_status = NoRetry(MakeStatus(
        absl::StatusCode::kResourceExhausted,
        "the answer is larger than {} bytes (grpc-max-message-bytes); use the streaming Generate",
        context_.max_response_bytes));
  }
  ToProto(usage, response_->mutable_usage());
  ToProto(timing, response_->mutable_timing());
  record_.Done(end_status, usage, timing);
  Finish(ToGrpcStatus(end_status));
}

void CompleteCall::OnCancel() {
  if (!record_.AtDeadline()) control_.Cancel();
}

grpc::ServerUnaryReactor* ScoreCall::Start(const ServiceContext& context,
                                           grpc::CallbackServerContext* call,
                                           const v1::ScoreRequest& request,
                                           v1::ScoreResponse* response) {
  auto self = std::make_shared<ScoreCall>(context, response);
  self->self_ = self;
  self->Submit(*call, request);
  return self.get();
}

void ScoreCall::Submit(const grpc::CallbackServerContext& call, const v1::ScoreRequest& request) {
  record_.SetTrace(call);
  absl::Status access = CheckApiKey(context_.api_keys, call);
  if (!access.ok()) return Refuse(access);
  absl::StatusOr<ScoreInput> native = ToNative(v1::ScoreRequest(request));
  if (!native.ok()) return Refuse(native.status());
  native->deadline = DeadlineOf(call, *context_.clock);
  if (native->request_id.empty()) native->request_id = MakeRequestId();
  record_.SetDeadline(native->deadline);
  record_.SetRequest(native->request_id, "");
  response_->set_request_id(native->request_id);
  response_->set_model(context_.model.name());
  auto control = context_.frontend->Score(*std::move(native), self_);
  if (!control.ok()) return Refuse(control.status());
  control_.Hold(*std::move(control));
}

void ScoreCall::Refuse(const absl::Status& status) {
  record_.Done(status);
  Finish(ToGrpcStatus(status));
}

void ScoreCall::OnDone(const absl::Status& status, std::vector<ContinuationResult> results,
                       const Usage& usage) {
  control_.Release();
  for (ContinuationResult& result : results) ToProto(std::move(result), response_->add_scores());
  ToProto(usage, response_->mutable_usage());
  absl::Status end_status = status;
  const auto bytes = static_cast<int64_t>(response_->ByteSizeLong());
  if (status.ok() && bytes > context_.max_response_bytes) {
    end_status = NoRetry(MakeStatus(absl::StatusCode::kResourceExhausted,
                                    "the answer of {} bytes is larger than {} "
                                    "(grpc-max-message-bytes); send fewer continuations",
                                    bytes, context_.max_response_bytes));
  }
  record_.Done(end_status, usage);
  Finish(ToGrpcStatus(end_status));
}

void ScoreCall::OnCancel() {
  if (!record_.AtDeadline()) control_.Cancel();
}

}  // namespace hgrn2
