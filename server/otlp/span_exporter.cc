#include "server/otlp/span_exporter.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "server/request_id.h"

namespace hgrn2 {
namespace {

// For the thread to notice that it is to give up.
constexpr Duration kGiveUpTime = std::chrono::milliseconds(200);

// Whether a trace is among the first `ratio` of all, by its random id.
bool IsSampled(const std::string& trace_id, double ratio) {
  const uint64_t bits = std::stoull(trace_id.substr(16), nullptr, 16);
  return static_cast<double>(bits >> 11) * 0x1p-53 < ratio;
}

}  // namespace

struct SpanExporter::Shared {
  explicit Shared(SpanExporterOptions o) : options(std::move(o)) {}

  void Count(TraceResult result, size_t n) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (!abandoned && options.on_result) options.on_result(result, n);
  }
  // False on time-out.
  bool WaitForEnd(Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const TimePoint end = Clock::Real().Now() + timeout;
    while (!ended && Clock::Real().Now() < end) changed.WaitFor(&mu, end - Clock::Real().Now());
    return ended;
  }

  const SpanExporterOptions options;
  Mutex mu;
  CondVar changed;
  std::deque<RequestSpan> queue ABSL_GUARDED_BY(mu);
  JsonPost* post ABSL_GUARDED_BY(mu) = nullptr;  // the one on its way
  bool stopping ABSL_GUARDED_BY(mu) = false;     // ends when all is sent
  bool abandoned ABSL_GUARDED_BY(mu) = false;    // ends now, and tells nobody
  bool ended ABSL_GUARDED_BY(mu) = false;        // the thread

  bool failing = false;  // the last batch was not taken; the thread's own
};

SpanExporter::SpanExporter(SpanExporterOptions options)
    : shared_(std::make_shared<Shared>(std::move(options))),
      thread_([shared = shared_] { Run(*shared); }) {}

SpanExporter::~SpanExporter() { Stop(Duration::zero()); }

void SpanExporter::Begin(TraceContext* trace) const {
  if (trace->trace_id.empty()) {
    std::string id = MakeRequestId() + MakeRequestId();
    if (!IsSampled(id, shared_->options.sample_ratio)) return;
    trace->trace_id = std::move(id);
    trace->sampled = true;
  }
  if (trace->sampled) trace->span_id = MakeRequestId();
}

void SpanExporter::Add(RequestSpan request) {
  Shared& s = *shared_;
  MutexLock lock(&s.mu);
  if (s.stopping || s.queue.size() >= s.options.max_queued) {
    return s.Count(TraceResult::kDropped, 1);
  }
  s.queue.push_back(std::move(request));
  if (s.queue.size() == s.options.max_batch) s.changed.NotifyAll();
}

void SpanExporter::Run(Shared& s) {
  for (bool more = true; more;) {
    std::vector<RequestSpan> batch;
    {
      MutexLock lock(&s.mu);
      const TimePoint end = Clock::Real().Now() + s.options.interval;
      while (!s.stopping && s.queue.size() < s.options.max_batch && Clock::Real().Now() < end) {
        s.changed.WaitFor(&s.mu, end - Clock::Real().Now());
      }
      const auto rest = s.queue.begin() +
                        static_cast<std::ptrdiff_t>(std::min(s.queue.size(), s.options.max_batch));
      batch.assign(std::make_move_iterator(s.queue.begin()), std::make_move_iterator(rest));
      s.queue.erase(s.queue.begin(), rest);
      more = !s.stopping || !s.queue.empty();
    }
    if (!batch.empty()) Send(s, batch);
    MutexLock lock(&s.mu);
    more = more && !s.abandoned;
  }
  MutexLock lock(&s.mu);
  s.ended = true;
  s.changed.NotifyAll();
}

void SpanExporter::Send(Shared& s, const std::vector<RequestSpan>& batch) {
  JsonPost post(s.options.endpoint, ToOtlpJson(s.options.source, batch));
  {
    MutexLock lock(&s.mu);
    if (s.abandoned) return;
    s.post = &post;
  }
  const absl::StatusOr<int> answer = post.Run(s.options.timeout);
  const bool ok = answer.ok() && *answer / 100 == 2;
  {
    MutexLock lock(&s.mu);
    s.post = nullptr;
    if (s.abandoned) return;
    s.Count(ok ? TraceResult::kSent : TraceResult::kFailed, batch.size());
  }
  if (std::exchange(s.failing, !ok) == !ok) return;
  const std::string& to = s.options.endpoint.authority;
  if (ok) {
    LOG_INFO("traces reach {} again", to);
  } else {
    LOG_WARNING("traces do not reach {}: {}", to,
                answer.ok() ? "HTTP status " + std::to_string(*answer)
                            : std::string(answer.status().message()));
  }
}

void SpanExporter::Stop(Duration flush) {
  if (!thread_.joinable()) return;
  {
    Shared& s = *shared_;
    MutexLock lock(&s.mu);
    s.stopping = true;
    s.changed.NotifyAll();
    if (!s.WaitForEnd(flush)) {
      s.abandoned = true;
      if (s.post != nullptr) s.post->Stop();
      if (!s.queue.empty()) LOG_WARNING("{} traced requests were not sent", s.queue.size());
      if (!s.WaitForEnd(kGiveUpTime)) return thread_.detach();
    }
  }
  thread_.join();
}

}  // namespace hgrn2
