#include "server/rpc_call.h"

#include <utility>

#include "base/log.h"
#include "server/grpc_status.h"
#include "server/request_log.h"

namespace hgrn2 {

TimePoint DeadlineOf(const grpc::ServerContextBase& context, const Clock& clock) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return kInfiniteFuture;
  const auto left = deadline - std::chrono::system_clock::now();
  // A client may send any deadline; far ones must not overflow the addition.
  if (left > std::chrono::hours(24 * 365)) return kInfiniteFuture;
  return clock.Now() + std::chrono::duration_cast<Duration>(left);
}

void ControlHolder::Hold(std::shared_ptr<RequestControl> control) {
  bool cancelled;
  {
    MutexLock lock(&mu_);
    if (released_) return;
    cancelled = cancelled_;
    control_ = control;
  }
  if (cancelled) control->Cancel();
}

void ControlHolder::Cancel() {
  std::shared_ptr<RequestControl> control;
  {
    MutexLock lock(&mu_);
    cancelled_ = true;
    control = control_;
  }
  if (control != nullptr) control->Cancel();
}

void ControlHolder::Release() {
  std::shared_ptr<RequestControl> control;  // destroyed outside the lock
  MutexLock lock(&mu_);
  released_ = true;
  control = std::move(control_);
}

void CallRecord::SetTrace(const grpc::ServerContextBase& call) {
  const auto& metadata = call.client_metadata();
  const auto found = metadata.find("traceparent");
  // Twice is not valid: which one would be the caller?
  if (found != metadata.end() && metadata.count("traceparent") == 1) {
    const std::string_view header(found->second.data(), found->second.size());
    if (auto trace = ParseTraceparent(header)) trace_ = *std::move(trace);
  }
  if (context_.spans != nullptr) context_.spans->Begin(&trace_);
}

bool CallRecord::AtDeadline() const {
  // The client's timer and ours differ by the time its request and its reset were under way.
  constexpr Duration kTolerance = std::chrono::milliseconds(20);
  return deadline_ != kInfiniteFuture && context_.clock->Now() + kTolerance >= deadline_;
}

void CallRecord::Done(const absl::Status& status, const Usage& usage, const Timing& timing) const {
  context_.metrics->OnRpcDone(method_, status.code());
  const double seconds = ToSeconds(context_.clock->Now() - started_);
  const RequestOutcome outcome{status, usage, timing, seconds, user_, trace_};
  if (!id_.empty() && !trace_.span_id.empty()) {
    context_.spans->Add(MakeRpcSpan(method_, id_, outcome));
  }
  const auto level = id_.empty() ? spdlog::level::debug : spdlog::level::info;
  if (!spdlog::should_log(level)) return;
  LogRecord record("rpc");
  record.Add("method", method_)
      .Add("request_id", id_.empty() ? "-" : id_)
      .Add("status", CodeName(status.code()));
  AddOutcome(outcome, &record);
  record.Write(level);
}

}  // namespace hgrn2
