// The unary calls that run on the engine: Complete and Score. Lifetime as GenerateStream's.
#pragma once

#include <grpcpp/support/server_callback.h>
#include <hgrn2/v1/inference.pb.h>

#include <memory>
#include <vector>

#include "engine/frontend/frontend.h"
#include "server/rpc_call.h"

namespace hgrn2 {

class CompleteCall final : public grpc::ServerUnaryReactor, public CompletionHandler {
 public:
  static grpc::ServerUnaryReactor* Start(const ServiceContext& context,
                                         grpc::CallbackServerContext* call,
                                         const v1::GenerateRequest& request,
                                         v1::CompleteResponse* response);

  CompleteCall(const ServiceContext& context, v1::CompleteResponse* response)
      : context_(context),
        lease_(context.active_calls),
        record_(context, "Complete"),
        response_(response) {}

  // CompletionHandler: never concurrently, so response_ needs no lock.
  void OnDelta(ChoiceDelta delta) override;
  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override;

  // ServerUnaryReactor
  void OnCancel() override;
  void OnDone() override {
    lease_.Release();
    self_.reset();
  }

 private:
  void Submit(const grpc::CallbackServerContext& call, const v1::GenerateRequest& request);
  void Refuse(const absl::Status& status);

  const ServiceContext& context_;
  ActiveCalls::Lease lease_;
  CallRecord record_;
  ControlHolder control_;
  v1::CompleteResponse* const response_;  // gRPC's, until Finish
  int64_t response_bytes_ = 0;
  bool too_large_ = false;
  std::shared_ptr<CompleteCall> self_;
};

class ScoreCall final : public grpc::ServerUnaryReactor, public ScoreHandler {
 public:
  static grpc::ServerUnaryReactor* Start(const ServiceContext& context,
                                         grpc::CallbackServerContext* call,
                                         const v1::ScoreRequest& request,
                                         v1::ScoreResponse* response);

  ScoreCall(const ServiceContext& context, v1::ScoreResponse* response)
      : context_(context),
        lease_(context.active_calls),
        record_(context, "Score"),
        response_(response) {}

  // ScoreHandler
  void OnDone(const absl::Status& status, std::vector<ContinuationResult> results,
              const Usage& usage) override;

  // ServerUnaryReactor
  void OnCancel() override;
  void OnDone() override {
    lease_.Release();
    self_.reset();
  }

 private:
  void Submit(const grpc::CallbackServerContext& call, const v1::ScoreRequest& request);
  void Refuse(const absl::Status& status);

  const ServiceContext& context_;
  ActiveCalls::Lease lease_;
  CallRecord record_;
  ControlHolder control_;
  v1::ScoreResponse* const response_;
  std::shared_ptr<ScoreCall> self_;
};

}  // namespace hgrn2
