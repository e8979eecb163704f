#include "server/request_log.h"

#include <string>

#include "base/status.h"

namespace hgrn2 {

void AddOutcome(const RequestOutcome& outcome, LogRecord* record) {
  record->Add("prompt_tokens", outcome.usage.prompt_tokens)
      .Add("completion_tokens", outcome.usage.completion_tokens)
      .Add("cached_tokens", outcome.usage.cached_tokens)
      .AddMilliseconds("queue_ms", outcome.timing.queue)
      .AddMilliseconds("prefill_ms", outcome.timing.prefill)
      .AddMilliseconds("decode_ms", outcome.timing.decode)
      .AddMilliseconds("total_ms", outcome.seconds);
  if (!outcome.user.empty()) record->Add("user", outcome.user);
  if (!outcome.trace.trace_id.empty()) {
    record->Add("trace_id", outcome.trace.trace_id);
    if (!outcome.trace.parent_id.empty()) record->Add("parent_id", outcome.trace.parent_id);
    record->Add("sampled", outcome.trace.sampled ? 1 : 0);
    if (!outcome.trace.span_id.empty()) record->Add("span_id", outcome.trace.span_id);
  }
  if (!outcome.status.ok()) record->Add("error", ToStd(outcome.status.message()));
}

}  // namespace hgrn2
