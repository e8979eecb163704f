// OTLP's JSON encoding of traces: opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding".
#pragma once

#include <span>
#include <string>

#include "server/otlp/request_span.h"

namespace hgrn2 {

// What is the same for all spans of a process.
struct SpanSource {
  std::string version;
  std::string host;
  std::string model;  // name that is served
};

// An ExportTraceServiceRequest.
std::string ToOtlpJson(const SpanSource& source, std::span<const RequestSpan> requests);

}  // namespace hgrn2
