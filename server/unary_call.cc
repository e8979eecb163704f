#include "server/unary_call.h"

#include <utility>

#include "base/status.h"
#include "server/convert.h"
#include "server/grpc_access.h"
#include "server/grpc_status.h"

namespace hgrn2 {

absl::Status UnaryCall::Admit(const grpc::CallbackServerContext& call) {
  record_.SetTrace(call);
  return CheckApiKey(context_.api_keys, call);
}

void UnaryCall::Refuse(const absl::Status& status) {
  record_.Done(status);
  Finish(ToGrpcStatus(status));
}

void UnaryCall::OnCancel() {
  if (!record_.AtDeadline()) control_.Cancel();
}

void UnaryCall::OnDone() {
  lease_.Release();
  self_.reset();
}

void CompletionCall::OnDelta(ChoiceDelta delta) {
  if (too_large_) return;
  response_bytes_ += ApproximateBytes(delta);
  if (response_bytes_ > context_.max_response_bytes) {
    too_large_ = true;
    control_.Cancel();
    return;
  }
  Append(std::move(delta));
}

void CompletionCall::OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) {
  control_.Release();
  absl::Status end_status = status;
  if (too_large_) {
    end_status =
        NoRetry(MakeStatus(absl::StatusCode::kResourceExhausted,
                           "the answer is larger than {} bytes (grpc-max-message-bytes); use {}",
                           context_.max_response_bytes, instead_));
  }
  Complete(usage, timing);
  record_.Done(end_status, usage, timing);
  Finish(ToGrpcStatus(end_status));
}

}  // namespace hgrn2
