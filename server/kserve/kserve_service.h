// inference.GRPCInferenceService, the Open Inference Protocol, over a Frontend.
#pragma once

#include <kserve/open_inference.grpc.pb.h>

#include <functional>
#include <string>

#include "server/rpc_call.h"

namespace hgrn2 {

struct KserveHealth {
  std::function<bool()> live;
  std::function<bool()> ready;
};

class KserveService final : public inference::GRPCInferenceService::CallbackService {
 public:
  // `context` outlives the service and has active_calls.
  KserveService(const ServiceContext& context, KserveHealth health)
      : context_(context), health_(std::move(health)) {}

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* call,
                                       const inference::ServerLiveRequest* request,
                                       inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* call,
                                        const inference::ServerReadyRequest* request,
                                        inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* call,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* call,
                                           const inference::ServerMetadataRequest* request,
                                           inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* call,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelConfig(grpc::CallbackServerContext* call,
                                        const inference::ModelConfigRequest* request,
                                        inference::ModelConfigResponse* response) override;
  grpc::ServerUnaryReactor* RepositoryIndex(grpc::CallbackServerContext* call,
                                            const inference::RepositoryIndexRequest* request,
                                            inference::RepositoryIndexResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* call,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override;
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
  ModelStreamInfer(grpc::CallbackServerContext* call) override;

 private:
  // NOT_FOUND unless the model is served and the version is "" or "1"; UNAUTHENTICATED.
  absl::Status CheckModel(const grpc::CallbackServerContext& call, const std::string& name,
                          const std::string& version) const;
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* call, const char* method,
                                   const absl::Status& status);

  const ServiceContext& context_;
  const KserveHealth health_;
};

}  // namespace hgrn2
