#include "server/otlp/request_span.h"

#include <chrono>

#include "base/string_view.h"
#include "server/grpc_status.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

constexpr size_t kMaxTextBytes = 300;

RequestSpan MakeSpan(std::string name, const char* operation, const std::string& request_id,
                     const RequestOutcome& outcome) {
  RequestSpan span;
  span.trace = outcome.trace;
  span.name = std::move(name);
  span.error = SafeUtf8(ToStd(outcome.status.message()), kMaxTextBytes);
  span.end = std::chrono::duration_cast<std::chrono::nanoseconds>(
                 std::chrono::system_clock::now().time_since_epoch())
                 .count();
  span.seconds = outcome.seconds;
  span.timing = outcome.timing;
  span.attributes = {
      {"gen_ai.operation.name", operation},
      {"gen_ai.usage.input_tokens", outcome.usage.prompt_tokens},
      {"gen_ai.usage.output_tokens", outcome.usage.completion_tokens},
      {"hgrn2.request_id", SafeUtf8(request_id, kMaxTextBytes)},
  };
  if (!outcome.status.ok()) {
    span.attributes.emplace_back("error.type", std::string(CodeName(outcome.status.code())));
  }
  return span;
}

// The codes of which the conventions say that the server is to blame.
bool IsServerError(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
      return true;
    default:
      return false;
  }
}

}  // namespace

RequestSpan MakeRpcSpan(const std::string& method, const std::string& request_id,
                        const RequestOutcome& outcome) {
  const bool kserve = method.starts_with("Model");
  const std::string service = kserve ? "inference.GRPCInferenceService" : "hgrn2.v1.Inference";
  RequestSpan span = MakeSpan(service + "/" + method,
                              method == "Score" ? "score" : "text_completion", request_id, outcome);
  span.failed = IsServerError(outcome.status.code());
  span.attributes.emplace_back("rpc.system", "grpc");
  span.attributes.emplace_back("rpc.service", service);
  span.attributes.emplace_back("rpc.method", method);
  span.attributes.emplace_back("rpc.grpc.status_code", static_cast<int64_t>(outcome.status.code()));
  return span;
}

RequestSpan MakeHttpSpan(const std::string& route, const std::string& request_id, int http_status,
                         const RequestOutcome& outcome) {
  const bool completions = route == "/v1/completions";
  RequestSpan span =
      MakeSpan("POST " + route, completions ? "text_completion" : "chat", request_id, outcome);
  span.failed = http_status >= 500;
  span.attributes.emplace_back("http.request.method", "POST");
  span.attributes.emplace_back("http.route", route);
  span.attributes.emplace_back("http.response.status_code", http_status);
  return span;
}

}  // namespace hgrn2
