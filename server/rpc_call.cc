#include "server/rpc_call.h"

#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "server/grpc_status.h"
#include "server/utf8.h"

namespace hgrn2 {

TimePoint DeadlineOf(const grpc::CallbackServerContext& context, const Clock& clock) {
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

bool CallRecord::AtDeadline() const {
  // The client's timer and ours differ by the time its request and its reset were under way.
  constexpr Duration kTolerance = std::chrono::milliseconds(20);
  return deadline_ != kInfiniteFuture && context_.clock->Now() + kTolerance >= deadline_;
}

void CallRecord::Done(const absl::Status& status, const Usage& usage, const Timing& timing) const {
  context_.metrics->OnRpcDone(method_, status.code());
  const auto level = id_.empty() ? spdlog::level::debug : spdlog::level::info;
  if (!spdlog::should_log(level)) return;
  std::string line = fmt::format(
      "rpc method={} id={} status={} prompt_tokens={} completion_tokens={} cached_tokens={} "
      "queue_ms={:.3f} prefill_ms={:.3f} decode_ms={:.3f} total_ms={:.3f}",
      method_, id_.empty() ? "-" : LogValue(id_), CodeName(status.code()), usage.prompt_tokens,
      usage.completion_tokens, usage.cached_tokens, timing.queue * 1e3, timing.prefill * 1e3,
      timing.decode * 1e3, ToSeconds(context_.clock->Now() - started_) * 1e3);
  if (!user_.empty()) line += fmt::format(" user={}", LogValue(user_));
  if (!status.ok()) {
    line += fmt::format(" message={}", LogValue(ToStd(status.message())));
  }
  spdlog::log(level, "{}", line);
}

}  // namespace hgrn2
