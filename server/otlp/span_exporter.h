// Sends the spans of ended requests to an OpenTelemetry collector: OTLP over HTTP, in JSON.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "server/otlp/json_post.h"
#include "server/otlp/otlp_json.h"
#include "server/trace_context.h"

namespace hgrn2 {

// What became of a traced request.
enum class TraceResult {
  kSent,
  kFailed,   // the collector did not take it
  kDropped,  // it came faster than they can be sent
};

struct SpanExporterOptions {
  HttpEndpoint endpoint;    // "/v1/traces" included
  double sample_ratio = 1;  // of requests whose caller has no trace
  SpanSource source;
  std::function<void(TraceResult, uint64_t)> on_result;  // until Stop
  size_t max_queued = 2048;
  size_t max_batch = 256;
  Duration interval = std::chrono::seconds(1);  // longest wait for a batch to fill
  Duration timeout = std::chrono::seconds(5);   // of one batch; it is not sent again
};

// Thread-safe. One thread of its own does all that can wait.
class SpanExporter {
 public:
  explicit SpanExporter(SpanExporterOptions options);
  ~SpanExporter();
  SpanExporter(const SpanExporter&) = delete;
  SpanExporter& operator=(const SpanExporter&) = delete;

  // When a request arrives: gives it a span_id if it is sampled, and a trace if its caller has
  // none.
  void Begin(TraceContext* trace) const;
  // When it has ended. REQUIRES: a span_id. Never waits: a request that does not fit is dropped.
  void Add(RequestSpan request);
  // Sends what is queued for at most `flush`; the rest is dropped. The owner's, before the end.
  void Stop(Duration flush);

 private:
  struct Shared;
  static void Run(Shared& shared);
  static void Send(Shared& shared, const std::vector<RequestSpan>& batch);

  // The thread's too: it may outlive this object for as long as the system's resolver hangs.
  const std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace hgrn2
