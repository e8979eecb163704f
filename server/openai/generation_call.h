// One generating request from its submission to its answer, whole or streamed.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "engine/frontend/frontend.h"
#include "server/http/http_types.h"
#include "server/metrics.h"
#include "server/openai/answer_format.h"
#include "server/otlp/span_exporter.h"
#include "server/rpc_call.h"
#include "server/trace_context.h"

namespace hgrn2 {

// Everything outlives the calls.
struct GenerationContext {
  Frontend* frontend = nullptr;
  Metrics* metrics = nullptr;
  SpanExporter* spans = nullptr;          // null: none are exported
  int64_t stream_buffer_bytes = 4 << 20;  // unsent output of one stream
  int64_t max_response_bytes = 64 << 20;  // of a whole answer
  const Clock* clock = &Clock::Real();
};

// What a call is about, beside the request itself.
struct GenerationTask {
  std::string route;         // "/v1/completions", for the log
  std::string prompt_field;  // what the endpoint calls the prompt, for errors
  bool stream = false;
  bool echo = false;
  bool prompt_only = false;            // the generated token is not shown
  std::vector<int32_t> prompt_tokens;  // per prompt, if known; for the usage so far
  TraceContext trace;
  std::unique_ptr<AnswerFormat> format;
};

// Submits `request` and answers through `responder`; a client that goes away cancels it.
void StartGeneration(const GenerationContext& context, CompletionRequest request,
                     GenerationTask task, std::shared_ptr<HttpResponder> responder);

}  // namespace hgrn2
