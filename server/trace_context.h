#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hgrn2 {

// Where a request belongs in a distributed trace: the W3C's traceparent (Trace Context, level 1).
struct TraceContext {
  std::string trace_id;   // 32 hexadecimal digits; empty: no trace
  std::string parent_id;  // 16: the caller's span
  bool sampled = false;
  std::string span_id;  // 16: of our own span; empty: there is none
};

// Nothing if the header is not valid: it is then ignored, as the standard asks. Later versions are
// read as far as version 00 defines them.
std::optional<TraceContext> ParseTraceparent(std::string_view header);

}  // namespace hgrn2
