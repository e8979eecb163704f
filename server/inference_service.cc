#include "server/inference_service.h"

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/grpc_access.h"
#include "server/grpc_status.h"
#include "server/unary_calls.h"

namespace hgrn2 {

namespace {

ServiceContext WithActiveCalls(ServiceContext context, ActiveCalls* active_calls) {
  context.active_calls = active_calls;
  return context;
}

}  // namespace

InferenceService::InferenceService(ServiceContext context)
    : context_(WithActiveCalls(std::move(context), &active_calls_)) {}

grpc::ServerUnaryReactor* InferenceService::Complete(grpc::CallbackServerContext* call,
                                                     const v1::GenerateRequest* request,
                                                     v1::CompleteResponse* response) {
  return UnaryCall::Launch<CompleteCall>(context_, *call, *request, response);
}

grpc::ServerUnaryReactor* InferenceService::Score(grpc::CallbackServerContext* call,
                                                  const v1::ScoreRequest* request,
                                                  v1::ScoreResponse* response) {
  return UnaryCall::Launch<ScoreCall>(context_, *call, *request, response);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* call,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  return Answer(call, "Tokenize", [&] { return DoTokenize(*request, response); });
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* call,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  return Answer(call, "Detokenize", [&] { return DoDetokenize(*request, response); });
}

grpc::ServerUnaryReactor* InferenceService::GetModel(grpc::CallbackServerContext* call,
                                                     const v1::GetModelRequest* request,
                                                     v1::GetModelResponse* response) {
  return Answer(call, "GetModel", [&] { return DoGetModel(*request, response); });
}

absl::Status InferenceService::DoTokenize(const v1::TokenizeRequest& request,
                                          v1::TokenizeResponse* response) {
  const bool special = !request.has_add_special_tokens() || request.add_special_tokens();
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                   context_.frontend->Tokenize(request.model(), request.text(), special));
  response->mutable_token_ids()->Add(ids.begin(), ids.end());
  for (const int32_t id : ids) {
    response->add_tokens(std::string(context_.frontend->tokenizer()->TokenBytes(id)));
  }
  return absl::OkStatus();
}

absl::Status InferenceService::DoDetokenize(const v1::DetokenizeRequest& request,
                                            v1::DetokenizeResponse* response) {
  const std::vector<int32_t> ids(request.token_ids().begin(), request.token_ids().end());
  ASSIGN_OR_RETURN(
      *response->mutable_text(),
      context_.frontend->Detokenize(request.model(), ids, request.skip_special_tokens()));
  return absl::OkStatus();
}

absl::Status InferenceService::DoGetModel(const v1::GetModelRequest& request,
                                          v1::GetModelResponse* response) {
  RETURN_IF_ERROR(context_.frontend->CheckModel(request.model()));
  *response = context_.model;
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* InferenceService::Answer(grpc::CallbackServerContext* call,
                                                   const char* method,
                                                   absl::FunctionRef<absl::Status()> answer) {
  absl::Status status = CheckApiKey(context_.api_keys, *call);
  if (status.ok()) status = answer();
  CallRecord(context_, method).Done(status);
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace hgrn2
