// ModelStreamInfer: many requests on one stream, each answered by many responses.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/mutex.h"
#include "engine/frontend/frontend.h"
#include "server/kserve/infer_request.h"
#include "server/rpc_call.h"

namespace hgrn2 {

// What waits to be written is one response per request, into which further deltas merge, and is
// bounded by ServiceContext::stream_buffer_bytes for the stream. Beyond it the request whose delta
// was too much ends with an error message. A request that fails ends with an error message; the
// stream goes on.
//
// Lifetime: the stream lives until gRPC (reactor OnDone) and every request's handler have let go.
// Finish is called once the client sends no more and every request has ended.
class InferStream final : public grpc::ServerBidiReactor<inference::ModelInferRequest,
                                                         inference::ModelStreamInferResponse>,
                          public std::enable_shared_from_this<InferStream> {
 public:
  using Reactor =
      grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>;
  static Reactor* Start(const ServiceContext& context, grpc::CallbackServerContext* call);

  InferStream(const ServiceContext& context, grpc::CallbackServerContext* call)
      : context_(context), call_(call) {}

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  class Request;
  // What waits to be written for one request.
  struct Pending {
    InferShape shape;
    std::vector<InferResult> results;
    int64_t bytes = 0;
    bool any = false;   // there is something to write
    bool held = false;  // only the end may be added: written with the final response
    bool ended = false;
    absl::Status status;
    Usage usage;
  };

  void Handle();
  // A request that never ran.
  void Refuse(const std::string& id, const absl::Status& status);
  // From the requests' handlers. False: too much is unread.
  bool Add(uint64_t key, ChoiceDelta delta);
  void End(uint64_t key, const absl::Status& status, const Usage& usage);
  // Writes the next response, or finishes, if nothing is under way.
  void Pump();
  // Moves the next response to writing_; false if there is none.
  bool TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CancelAll();

  const ServiceContext& context_;
  grpc::CallbackServerContext* const call_;
  std::shared_ptr<InferStream> self_;

  Mutex mu_;
  std::map<uint64_t, Pending> pending_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, std::shared_ptr<Request>> requests_ ABSL_GUARDED_BY(mu_);
  uint64_t next_key_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t last_written_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t pending_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool reads_done_ ABSL_GUARDED_BY(mu_) = false;
  bool discard_ ABSL_GUARDED_BY(mu_) = false;
  bool write_in_flight_ ABSL_GUARDED_BY(mu_) = false;
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;
  // Held while there is something to wait for: an idle stream must not keep a server from stopping.
  std::optional<ActiveCalls::Lease> lease_ ABSL_GUARDED_BY(mu_);

  inference::ModelInferRequest reading_;         // gRPC's between StartRead and OnReadDone
  inference::ModelStreamInferResponse writing_;  // gRPC's while a write is in flight
};

}  // namespace hgrn2
