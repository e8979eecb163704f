#include "server/otlp/otlp_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/request_id.h"

namespace hgrn2 {
namespace {

using Json = nlohmann::ordered_json;

// Numbers of the protocol's enumerations: names are not allowed in OTLP.
constexpr int kInternal = 1;
constexpr int kServer = 2;
constexpr int kStatusError = 2;

Json Attribute(const SpanAttribute& attribute) {
  Json value;
  if (const auto* number = std::get_if<int64_t>(&attribute.second)) {
    value = {{"intValue", std::to_string(*number)}};  // 64 bits are strings in protobuf's JSON
  } else {
    value = {{"stringValue", std::get<std::string>(attribute.second)}};
  }
  return {{"key", attribute.first}, {"value", std::move(value)}};
}

Json Attributes(std::span<const SpanAttribute> attributes) {
  Json array = Json::array();
  for (const SpanAttribute& attribute : attributes) array.push_back(Attribute(attribute));
  return array;
}

Json Span(const std::string& trace_id, const std::string& span_id, const std::string& parent_id,
          const std::string& name, int kind, int64_t start, int64_t end) {
  Json span{{"traceId", trace_id}, {"spanId", span_id}};
  if (!parent_id.empty()) span["parentSpanId"] = parent_id;
  span["name"] = name;
  span["kind"] = kind;
  span["startTimeUnixNano"] = std::to_string(start);
  span["endTimeUnixNano"] = std::to_string(end);
  return span;
}

int64_t Nanoseconds(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

void AddSpans(const SpanSource& source, const RequestSpan& request, Json* spans) {
  const TraceContext& trace = request.trace;
  const int64_t start = request.end - Nanoseconds(request.seconds);
  Json server = Span(trace.trace_id, trace.span_id, trace.parent_id, request.name, kServer, start,
                     request.end);
  server["attributes"] = Attributes(request.attributes);
  server["attributes"].push_back(Attribute({"gen_ai.request.model", source.model}));
  server["attributes"].push_back(Attribute({"gen_ai.provider.name", "hgrn2"}));
  if (request.failed) server["status"] = {{"code", kStatusError}, {"message", request.error}};
  spans->push_back(std::move(server));
  // The phases follow one another up to the end; what is before them is parsing and tokenizing.
  const std::pair<const char*, double> phases[] = {{"queue", request.timing.queue},
                                                   {"prefill", request.timing.prefill},
                                                   {"decode", request.timing.decode}};
  int64_t at = request.end;
  for (const auto& [name, seconds] : phases) at -= Nanoseconds(seconds);
  for (const auto& [name, seconds] : phases) {
    const int64_t end = at + Nanoseconds(seconds);
    // Of several prompts each phase is the longest one's, and together they may exceed the request.
    if (seconds > 0) {
      spans->push_back(Span(trace.trace_id, MakeRequestId(), trace.span_id, name, kInternal,
                            std::max(at, start), std::max(end, start)));
    }
    at = end;
  }
}

}  // namespace

std::string ToOtlpJson(const SpanSource& source, std::span<const RequestSpan> requests) {
  Json spans = Json::array();
  for (const RequestSpan& request : requests) AddSpans(source, request, &spans);
  const SpanAttribute resource[] = {{"service.name", "hgrn2-server"},
                                    {"service.version", source.version},
                                    {"host.name", source.host}};
  const Json scope{{"scope", {{"name", "hgrn2-server"}, {"version", source.version}}},
                   {"spans", std::move(spans)}};
  const Json body{
      {"resourceSpans",
       {{{"resource", {{"attributes", Attributes(resource)}}}, {"scopeSpans", {scope}}}}}};
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace hgrn2
