// One Generate call: a state machine that gRPC's completion queues and the frontend's workers
// drive.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/async_stream.h>
#include <hgrn2/v1/inference.pb.h>

#include <memory>
#include <optional>
#include <unordered_map>

#include "base/mutex.h"
#include "engine/frontend/frontend.h"
#include "server/completion_queue.h"
#include "server/rpc_call.h"
#include "server/stream_connection.h"

namespace hgrn2 {

class GenerateAcceptor;
class InferenceService;

// Deltas that arrive while a write is under way are merged, per choice, into the next message, so a
// reader that keeps up gets a message per step and a slower one fewer, larger messages. What is
// unsent is bounded by ServiceContext::stream_buffer_bytes (plus one delta); beyond it the request
// is cancelled and the call ends with RESOURCE_EXHAUSTED.
//
// Lifetime: the call lives until both gRPC (its last event) and the frontend (its shared_ptr) have
// let go. It is finished only after the frontend's OnDone, so no delta meets a finished call.
class GenerateStream final : public CompletionHandler,
                             public std::enable_shared_from_this<GenerateStream> {
 public:
  // `queue`: the acceptor's that the call is asked for on.
  GenerateStream(const ServiceContext& context, GenerateAcceptor& acceptor, size_t queue)
      : context_(context), acceptor_(acceptor), queue_(queue), record_(context, "Generate") {}

  // Asks gRPC for a call, of which `accepted` tells; further events come to `queue`. From then on
  // this belongs to itself.
  void Request(InferenceService* service, grpc::CompletionQueue* queue,
               grpc::ServerCompletionQueue* accepted);

  // CompletionHandler, on a worker thread.
  std::optional<size_t> worker() const override;
  void OnDelta(ChoiceDelta delta) override;
  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override;

 private:
  // Of gRPC, on a thread of the queue.
  struct Event final : CompletionEvent {
    Event(GenerateStream* stream, void (GenerateStream::*method)(bool ok))
        : stream(stream), method(method) {}
    void Happened(bool ok) override {
      const auto alive = stream->shared_from_this();  // another thread may have the last event
      (stream->*method)(ok);
    }
    GenerateStream* const stream;
    void (GenerateStream::*const method)(bool ok);
  };
  void OnAccepted(bool ok);
  void OnWritten(bool ok);
  void OnFinished(bool ok);
  void OnCallDone(bool ok);  // the client has the status, or will never have it

  void Submit();
  // Ends the call once what is unsent has been sent.
  void End(const absl::Status& status, const Usage& usage = {}, const Timing& timing = {});
  void Merge(ChoiceDelta delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Starts the next gRPC operation if none is under way and there is one to start.
  void Pump();
  // After one of gRPC's events: cancels what a client has gone from, and lets go of the call if
  // gRPC has no further event for it.
  void Settle();

  const ServiceContext& context_;
  GenerateAcceptor& acceptor_;
  const size_t queue_;
  std::shared_ptr<GenerateStream> self_ ABSL_GUARDED_BY(mu_);  // until gRPC's last event
  grpc::ServerContext call_;
  grpc::ServerAsyncWriter<v1::GenerateResponse> writer_{&call_};
  v1::GenerateRequest request_;
  Event accepted_{this, &GenerateStream::OnAccepted};
  Event written_{this, &GenerateStream::OnWritten};
  Event finished_event_{this, &GenerateStream::OnFinished};
  Event call_done_event_{this, &GenerateStream::OnCallDone};

  std::shared_ptr<StreamConnection> connection_;
  std::optional<ActiveCalls::Lease> lease_;  // while gRPC has the call
  CallRecord record_;
  ControlHolder control_;

  Mutex mu_;
  v1::GenerateResponse pending_ ABSL_GUARDED_BY(mu_);  // merged deltas, not yet given to gRPC
  int64_t pending_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::unordered_map<int32_t, int> position_ ABSL_GUARDED_BY(mu_);  // choice index in pending_
  bool write_in_flight_ ABSL_GUARDED_BY(mu_) = false;
  bool discard_ ABSL_GUARDED_BY(mu_) = false;  // client gone or too slow: output goes nowhere
  bool overflow_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;      // the frontend has reported the end
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;  // Finish was called
  bool submitted_ ABSL_GUARDED_BY(mu_) = false;  // or refused: record_ is whole
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  bool call_done_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status end_status_ ABSL_GUARDED_BY(mu_);

  v1::GenerateResponse writing_;  // belongs to the write in flight
};

}  // namespace hgrn2
