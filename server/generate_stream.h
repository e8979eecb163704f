// One Generate call: a reactor that gRPC drives on its threads, fed by the frontend's workers.
#pragma once

#include <grpcpp/support/server_callback.h>
#include <hgrn2/v1/inference.pb.h>

#include <memory>
#include <unordered_map>

#include "base/mutex.h"
#include "engine/frontend/frontend.h"
#include "server/rpc_call.h"

namespace hgrn2 {

// Deltas that arrive while a write is under way are merged, per choice, into the next message, so a
// reader that keeps up gets a message per step and a slower one fewer, larger messages. What is
// unsent is bounded by ServiceContext::stream_buffer_bytes (plus one delta); beyond it the request
// is cancelled and the call ends with RESOURCE_EXHAUSTED.
//
// Lifetime: the call lives until both gRPC (reactor OnDone) and the frontend (its shared_ptr) have
// let go. Finish is called only after the frontend's OnDone, so no delta meets a finished call.
class GenerateStream final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                             public CompletionHandler {
 public:
  // Submits the request. The result belongs to itself, as gRPC's reactors do.
  static grpc::ServerWriteReactor<v1::GenerateResponse>* Start(const ServiceContext& context,
                                                               grpc::CallbackServerContext* call,
                                                               const v1::GenerateRequest& request);

  explicit GenerateStream(const ServiceContext& context)
      : context_(context), lease_(context.active_calls), record_(context, "Generate") {}

  // CompletionHandler, on a worker thread.
  void OnDelta(ChoiceDelta delta) override;
  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override;

  // ServerWriteReactor, on gRPC's threads.
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void Submit(const grpc::CallbackServerContext& call, const v1::GenerateRequest& request);
  // Ends the call once what is unsent has been sent.
  void End(const absl::Status& status);
  void Merge(ChoiceDelta delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Starts the next gRPC operation if none is under way and there is one to start. Operations are
  // started outside mu_: gRPC may run their completion on this very thread.
  void Pump();

  const ServiceContext& context_;
  ActiveCalls::Lease lease_;  // until gRPC is done with the reactor
  CallRecord record_;
  ControlHolder control_;
  std::shared_ptr<GenerateStream> self_;  // until gRPC is done with the reactor

  Mutex mu_;
  v1::GenerateResponse pending_ ABSL_GUARDED_BY(mu_);  // merged deltas, not yet given to gRPC
  int64_t pending_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::unordered_map<int32_t, int> position_ ABSL_GUARDED_BY(mu_);  // choice index in pending_
  bool write_in_flight_ ABSL_GUARDED_BY(mu_) = false;
  bool discard_ ABSL_GUARDED_BY(mu_) = false;  // client gone or too slow: output goes nowhere
  bool overflow_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;      // the frontend has reported the end
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;  // Finish was called
  absl::Status end_status_ ABSL_GUARDED_BY(mu_);

  v1::GenerateResponse writing_;  // belongs to the write in flight
};

}  // namespace hgrn2
