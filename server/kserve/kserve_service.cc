#include "server/kserve/kserve_service.h"

#include "base/status.h"
#include "server/grpc_access.h"
#include "server/grpc_status.h"
#include "server/kserve/infer_call.h"
#include "server/kserve/infer_stream.h"
#include "server/version.h"

namespace hgrn2 {
namespace {

constexpr char kVersion[] = "1";
constexpr char kPlatform[] = "hgrn2";

// The batch is the first dimension of the text tensors; parameters have one element.
void DescribeTensor(const TensorInfo& info, bool batched,
                    inference::ModelMetadataResponse::TensorMetadata* out) {
  out->set_name(info.name);
  out->set_datatype(info.datatype);
  out->add_shape(batched || std::string_view(info.name) == "stop" ? -1 : 1);
}

}  // namespace

absl::Status KserveService::CheckModel(const grpc::CallbackServerContext& call,
                                       const std::string& name, const std::string& version) const {
  RETURN_IF_ERROR(CheckApiKey(context_.api_keys, call));
  RETURN_IF_ERROR(context_.frontend->CheckModel(name));
  if (version.empty() || version == kVersion) return absl::OkStatus();
  return MakeStatus(absl::StatusCode::kNotFound, "version: there is only version {}", kVersion);
}

grpc::ServerUnaryReactor* KserveService::Answer(grpc::CallbackServerContext* call,
                                                const char* method, const absl::Status& status) {
  CallRecord(context_, method).Done(status);
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* KserveService::ServerLive(grpc::CallbackServerContext* call,
                                                    const inference::ServerLiveRequest*,
                                                    inference::ServerLiveResponse* response) {
  response->set_live(health_.live());
  return Answer(call, "ServerLive", absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ServerReady(grpc::CallbackServerContext* call,
                                                     const inference::ServerReadyRequest*,
                                                     inference::ServerReadyResponse* response) {
  response->set_ready(health_.ready());
  return Answer(call, "ServerReady", absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ModelReady(grpc::CallbackServerContext* call,
                                                    const inference::ModelReadyRequest* request,
                                                    inference::ModelReadyResponse* response) {
  const absl::Status status = CheckModel(*call, request->name(), request->version());
  response->set_ready(status.ok() && health_.ready());
  // A model that does not exist is not ready; a caller without a key is told so.
  return Answer(call, "ModelReady", absl::IsNotFound(status) ? absl::OkStatus() : status);
}

grpc::ServerUnaryReactor* KserveService::ServerMetadata(
    grpc::CallbackServerContext* call, const inference::ServerMetadataRequest*,
    inference::ServerMetadataResponse* response) {
  response->set_name("hgrn2-server");
  response->set_version(std::string(ServerVersion()));
  response->add_extensions("model_configuration");
  return Answer(call, "ServerMetadata", absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ModelMetadata(
    grpc::CallbackServerContext* call, const inference::ModelMetadataRequest* request,
    inference::ModelMetadataResponse* response) {
  const absl::Status status = CheckModel(*call, request->name(), request->version());
  if (status.ok()) {
    response->set_name(context_.frontend->served_model_name());
    response->add_versions(kVersion);
    response->set_platform(kPlatform);
    for (const TensorInfo& info : InputTensors()) {
      DescribeTensor(info, !info.optional, response->add_inputs());
    }
    for (const TensorInfo& info : OutputTensors()) {
      DescribeTensor(info, true, response->add_outputs());
    }
  }
  return Answer(call, "ModelMetadata", status);
}

grpc::ServerUnaryReactor* KserveService::ModelConfig(grpc::CallbackServerContext* call,
                                                     const inference::ModelConfigRequest* request,
                                                     inference::ModelConfigResponse* response) {
  const absl::Status status = CheckModel(*call, request->name(), request->version());
  if (status.ok()) {
    inference::ModelConfig* const config = response->mutable_config();
    config->set_name(context_.frontend->served_model_name());
    config->set_platform(kPlatform);
    config->set_backend(kPlatform);
    // 0: the shapes of the tensors are whole, with the batch in them.
    config->set_max_batch_size(0);
    for (const TensorInfo& info : InputTensors()) {
      inference::ModelInput* const input = config->add_input();
      input->set_name(info.name);
      input->set_data_type(info.type);
      input->add_dims(info.optional && std::string_view(info.name) != "stop" ? 1 : -1);
      input->set_optional(info.optional);
    }
    for (const TensorInfo& info : OutputTensors()) {
      inference::ModelOutput* const output = config->add_output();
      output->set_name(info.name);
      output->set_data_type(info.type);
      output->add_dims(-1);
    }
    config->mutable_model_transaction_policy()->set_decoupled(true);
  }
  return Answer(call, "ModelConfig", status);
}

grpc::ServerUnaryReactor* KserveService::RepositoryIndex(
    grpc::CallbackServerContext* call, const inference::RepositoryIndexRequest* request,
    inference::RepositoryIndexResponse* response) {
  const absl::Status access = CheckApiKey(context_.api_keys, *call);
  const bool ready = health_.ready();
  if (access.ok() && (ready || !request->ready())) {
    auto* const model = response->add_models();
    model->set_name(context_.frontend->served_model_name());
    model->set_version(kVersion);
    model->set_state(ready ? "READY" : "UNAVAILABLE");
    if (!ready) model->set_reason("the server is stopping or its device failed");
  }
  return Answer(call, "RepositoryIndex", access);
}

grpc::ServerUnaryReactor* KserveService::ModelInfer(grpc::CallbackServerContext* call,
                                                    const inference::ModelInferRequest* request,
                                                    inference::ModelInferResponse* response) {
  return UnaryCall::Launch<InferCall>(context_, *call, *request, response);
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
KserveService::ModelStreamInfer(grpc::CallbackServerContext* call) {
  return InferStream::Start(context_, call);
}

}  // namespace hgrn2
