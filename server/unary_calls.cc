#include "server/unary_calls.h"

#include <utility>

#include "base/status.h"
#include "server/convert.h"
#include "server/grpc_status.h"

namespace hgrn2 {

void CompleteCall::Submit(const grpc::CallbackServerContext& call,
                          const v1::GenerateRequest& request,
                          std::shared_ptr<CompletionHandler> self) {
  const absl::Status admitted = Admit(call);
  if (!admitted.ok()) return Refuse(admitted);
  absl::StatusOr<CompletionRequest> native = ToNative(v1::GenerateRequest(request));
  if (!native.ok()) return Refuse(native.status());
  native->deadline = DeadlineOf(call, *context_.clock);
  if (native->request_id.empty()) native->request_id = MakeRequestId();
  record_.SetDeadline(native->deadline);
  record_.SetRequest(native->request_id, native->user);
  response_->set_request_id(native->request_id);
  response_->set_model(context_.model.name());
  auto control = context_.frontend->Generate(*std::move(native), std::move(self));
  if (!control.ok()) return Refuse(control.status());
  control_.Hold(*std::move(control));
}

void CompleteCall::Append(ChoiceDelta delta) {
  while (response_->choices_size() <= delta.index) {
    response_->add_choices()->set_index(response_->choices_size() - 1);
  }
  v1::ChoiceDelta* const choice = response_->mutable_choices(delta.index);
  AppendTo(std::move(delta), choice);
}

void CompleteCall::Complete(const Usage& usage, const Timing& timing) {
  ToProto(usage, response_->mutable_usage());
  ToProto(timing, response_->mutable_timing());
}

void ScoreCall::Submit(const grpc::CallbackServerContext& call, const v1::ScoreRequest& request,
                       std::shared_ptr<ScoreHandler> self) {
  const absl::Status admitted = Admit(call);
  if (!admitted.ok()) return Refuse(admitted);
  absl::StatusOr<ScoreInput> native = ToNative(v1::ScoreRequest(request));
  if (!native.ok()) return Refuse(native.status());
  native->deadline = DeadlineOf(call, *context_.clock);
  if (native->request_id.empty()) native->request_id = MakeRequestId();
  record_.SetDeadline(native->deadline);
  record_.SetRequest(native->request_id, "");
  response_->set_request_id(native->request_id);
  response_->set_model(context_.model.name());
  auto control = context_.frontend->Score(*std::move(native), std::move(self));
  if (!control.ok()) return Refuse(control.status());
  control_.Hold(*std::move(control));
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

}  // namespace hgrn2
