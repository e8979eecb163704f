// A request that has ended, as a trace shows it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/request_log.h"

namespace hgrn2 {

using SpanAttribute = std::pair<std::string, std::variant<std::string, int64_t>>;

// Becomes a span of kind server, and a child for each phase that the request has been in.
struct RequestSpan {
  TraceContext trace;  // with a span_id
  std::string name;    // "hgrn2.v1.Inference/Generate"
  std::vector<SpanAttribute> attributes;
  bool failed = false;  // by the server's doing
  std::string error;    // the status's message; empty if it is OK
  int64_t end = 0;      // nanoseconds since 1970
  double seconds = 0;   // from its arrival
  Timing timing;
};

// Attributes by OpenTelemetry's semantic conventions for RPC, HTTP and generative AI. They end now.
RequestSpan MakeRpcSpan(const std::string& method, const std::string& request_id,
                        const RequestOutcome& outcome);
RequestSpan MakeHttpSpan(const std::string& route, const std::string& request_id, int http_status,
                         const RequestOutcome& outcome);

}  // namespace hgrn2
