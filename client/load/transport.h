// How a load test's requests reach a server: one Transport per polling thread, over gRPC or over
// HTTP with server-sent events. The runner decides what is sent and when, and measures.
#pragma once

#include <grpcpp/support/status_code_enum.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace hgrn2::client {

struct CallRequest {
  std::string request_id;
  const std::string* text = nullptr;     // the prompt, or if null
  absl::Span<const int32_t> prompt_ids;  // these token ids
  int max_tokens = 1;
  int priority = 0;
  double timeout_s = 0;  // 0: none
};

// One message of an answer. Negative: this message does not say.
struct AnswerPart {
  int tokens = 0;                       // new ones
  absl::Span<const int32_t> token_ids;  // those, where the server tells
  int total_tokens = -1;                // of the whole answer so far; corrects what was counted
  int prompt_tokens = -1;
  int cached_tokens = -1;
  double queue_s = -1, prefill_s = -1, decode_s = -1;
  bool aborted = false;  // the server gave up on this answer
};

struct CallEnd {
  grpc::StatusCode code = grpc::StatusCode::OK;
  int http_status = 0;  // of a refusal over HTTP; 0: there was none
  std::string message;
};

// What happens to one call, told on its transport's polling thread. Lives until OnEnd returns.
class CallEvents {
 public:
  // These return false to cancel the call; OnEnd follows all the same.
  virtual bool OnStarted() = 0;  // the request is on its way
  virtual bool OnPart(const AnswerPart& part) = 0;
  virtual void OnEnd(const CallEnd& end) = 0;

 protected:
  ~CallEvents() = default;
};

class Transport {
 public:
  virtual ~Transport() = default;

  // Opens `connections` connections to each target and waits until they stand. Once, first, before
  // Run. At most `expected` calls will usually be in flight (0: unknown).
  virtual absl::Status Connect(int connections, int expected) = 0;
  // Index of the target that the next call should go to. Any thread.
  virtual int NextTarget() = 0;
  // Any thread, also from inside events. Has read all of `request` before the first event.
  virtual void Start(int target, const CallRequest& request, CallEvents* events) = 0;
  virtual void CancelAll() = 0;  // any thread
  // Delivers events until Shutdown.
  virtual void Run() = 0;
  // Any thread. REQUIRES: no call is in flight, and none starts any more.
  virtual void Shutdown() = 0;
};

}  // namespace hgrn2::client
