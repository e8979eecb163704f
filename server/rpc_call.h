// What the calls of the Inference service share: their surroundings, the way to cancel, the access
// log.
#pragma once

#include <grpcpp/server_context.h>
#include <hgrn2/v1/inference.pb.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "engine/frontend/frontend.h"
#include "server/active_calls.h"
#include "server/metrics.h"
#include "server/otlp/span_exporter.h"
#include "server/request_id.h"
#include "server/trace_context.h"

namespace hgrn2 {

// Everything outlives the server's calls.
struct ServiceContext {
  Frontend* frontend = nullptr;
  Metrics* metrics = nullptr;
  SpanExporter* spans = nullptr;  // null: none are exported
  ActiveCalls* active_calls = nullptr;
  v1::GetModelResponse model;             // GetModel's answer
  int64_t stream_buffer_bytes = 4 << 20;  // unsent output of one Generate call
  int64_t max_response_bytes = 16 << 20;  // of a unary call
  std::vector<std::string> api_keys;      // none: everybody may call
  // Of the frontend's workers, each of which waits on its own (QueueLoop). Not empty.
  std::vector<grpc::CompletionQueue*> worker_queues;
  const Clock* clock = &Clock::Real();
};

// The call's deadline on our clock; kInfiniteFuture if it has none.
TimePoint DeadlineOf(const grpc::ServerContextBase& context, const Clock& clock);

// A request's control between the thread that submits it, gRPC's cancellation and the end of the
// request, in whatever order they come. Thread-safe.
class ControlHolder {
 public:
  // Cancels at once if Cancel came first; drops it if Release did.
  void Hold(std::shared_ptr<RequestControl> control);
  void Cancel();
  // The request has ended. Also breaks the cycle of control and handler.
  void Release();

 private:
  Mutex mu_;
  std::shared_ptr<RequestControl> control_ ABSL_GUARDED_BY(mu_);
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool released_ ABSL_GUARDED_BY(mu_) = false;
};

// One line of the access log, the RPC's count and its span, when it ends.
class CallRecord {
 public:
  CallRecord(const ServiceContext& context, const char* method)
      : context_(context), method_(method), started_(context.clock->Now()) {}

  // The call begins now, not when the record was made.
  void Start() { started_ = context_.clock->Now(); }
  void SetRequest(std::string id, std::string user) {
    id_ = std::move(id);
    user_ = std::move(user);
  }
  void SetDeadline(TimePoint deadline) { deadline_ = deadline; }
  // Takes the caller's trace from the call's metadata, or begins one.
  void SetTrace(const grpc::ServerContextBase& call);
  const std::string& id() const { return id_; }

  // Whether gRPC's cancellation is (about) the deadline's. The engine ends such requests itself,
  // and they are to be counted as deadline misses, not as cancellations.
  bool AtDeadline() const;

  void Done(const absl::Status& status, const Usage& usage = {}, const Timing& timing = {}) const;

 private:
  const ServiceContext& context_;
  const char* const method_;
  TimePoint started_;
  TimePoint deadline_ = kInfiniteFuture;
  std::string id_;
  std::string user_;
  TraceContext trace_;
};

}  // namespace hgrn2
