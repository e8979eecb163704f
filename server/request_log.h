#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "engine/request.h"
#include "server/log_record.h"
#include "server/trace_context.h"

namespace hgrn2 {

// What the log says of a generating request that has ended, after its name, id and status.
struct RequestOutcome {
  const absl::Status& status;
  const Usage& usage;
  const Timing& timing;
  double seconds = 0;     // from its arrival
  std::string_view user;  // may be empty
  const TraceContext& trace;
};

void AddOutcome(const RequestOutcome& outcome, LogRecord* record);

}  // namespace hgrn2
