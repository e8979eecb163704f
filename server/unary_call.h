// What the unary calls that run on the engine share: their lifetime, refusal and cancellation.
// Lifetime as GenerateStream's.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>

#include "engine/frontend/frontend.h"
#include "server/rpc_call.h"

namespace hgrn2 {

class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  // Makes a Call from (context, response), which owns itself, and has it submit `request` with
  // itself as the handler.
  template <typename Call, typename Request, typename Response>
  static grpc::ServerUnaryReactor* Launch(const ServiceContext& context,
                                          const grpc::CallbackServerContext& call,
                                          const Request& request, Response* response) {
    auto self = std::make_shared<Call>(context, response);
    self->self_ = self;
    self->Submit(call, request, self);
    return self.get();
  }

  // ServerUnaryReactor
  void OnCancel() override;
  void OnDone() override;

 protected:
  UnaryCall(const ServiceContext& context, const char* method)
      : context_(context), lease_(context.active_calls), record_(context, method) {}

  // Takes the caller's trace, and says whether it may call.
  absl::Status Admit(const grpc::CallbackServerContext& call);
  // Ends a call that was not submitted.
  void Refuse(const absl::Status& status);

  const ServiceContext& context_;
  ActiveCalls::Lease lease_;
  CallRecord record_;
  ControlHolder control_;

 private:
  std::shared_ptr<UnaryCall> self_;
};

// A unary call whose answer is gathered from a completion's deltas, up to max_response_bytes.
class CompletionCall : public UnaryCall, public CompletionHandler {
 public:
  using UnaryCall::OnDone;
  // CompletionHandler: never concurrently, so the response needs no lock.
  void OnDelta(ChoiceDelta delta) final;
  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) final;

 protected:
  // `instead`: what a caller with larger answers should use, for the error.
  CompletionCall(const ServiceContext& context, const char* method, const char* instead)
      : UnaryCall(context, method), instead_(instead) {}

  virtual void Append(ChoiceDelta delta) = 0;
  // Completes the response, after the last delta.
  virtual void Complete(const Usage& usage, const Timing& timing) = 0;

 private:
  const char* const instead_;
  int64_t response_bytes_ = 0;
  bool too_large_ = false;
};

}  // namespace hgrn2
