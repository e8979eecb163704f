#include "server/metrics.h"

#include <prometheus/text_serializer.h>

#include "server/grpc_status.h"
#include "server/version.h"

namespace hgrn2 {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr std::array<const char*, 3> kFinishReasons = {"stop", "length", "abort"};
constexpr std::array<const char*, 3> kPhases = {"queued", "prefill", "decode"};
constexpr std::array<const char*, 3> kRejectReasons = {"queue_full", "draining", "deadline"};
constexpr std::array<const char*, 3> kTraceResults = {"sent", "failed", "dropped"};

// Builds families whose series all carry the model_name label.
class FamilyBuilder {
 public:
  FamilyBuilder(const std::string& model_name, std::vector<MetricFamily>* out)
      : model_name_(model_name), out_(out) {}

  FamilyBuilder& Begin(MetricType type, const char* name, const char* help) {
    out_->push_back({name, help, type, {}});
    return *this;
  }
  FamilyBuilder& Add(double value, Labels labels = {}) {
    ClientMetric metric;
    metric.counter.value = value;
    metric.gauge.value = value;
    return Add(std::move(metric), std::move(labels));
  }
  FamilyBuilder& Add(const AtomicHistogram& histogram, Labels labels = {}) {
    return Add(histogram.Collect(), std::move(labels));
  }
  // One series per value of `label`.
  template <typename Counters, typename Values>
  FamilyBuilder& AddAll(const char* label, const Values& values, const Counters& counters) {
    for (size_t i = 0; i < values.size(); ++i) {
      Add(static_cast<double>(counters[i].load(std::memory_order_relaxed)), {{label, values[i]}});
    }
    return *this;
  }

 private:
  FamilyBuilder& Add(ClientMetric metric, Labels labels) {
    metric.label.push_back({"model_name", model_name_});
    for (auto& label : labels) metric.label.push_back(std::move(label));
    out_->back().metric.push_back(std::move(metric));
    return *this;
  }

  const std::string& model_name_;
  std::vector<MetricFamily>* const out_;
};

double Value(const std::atomic<uint64_t>& counter) {
  return static_cast<double>(counter.load(std::memory_order_relaxed));
}

}  // namespace

Metrics::Metrics(std::string model_name) : model_name_(std::move(model_name)) {}

void Metrics::OnStep(const StepInfo& step) {
  const int32_t tokens = step.prefill_tokens + step.decode_tokens;
  iteration_tokens_.Observe(tokens);
  batch_size_.Observe(step.num_sequences);
  step_plan_.Observe(step.plan_seconds);
  step_device_.Observe(step.device_seconds);
  step_apply_.Observe(step.apply_seconds);
}

void Metrics::OnFirstToken(double time_to_first_token) {
  time_to_first_token_.Observe(time_to_first_token);
}

void Metrics::OnInterTokenLatency(double seconds) { inter_token_latency_.Observe(seconds); }

void Metrics::OnPrefilled(int32_t prompt_tokens) {
  Add(prompt_tokens_, static_cast<uint64_t>(prompt_tokens));
}

void Metrics::OnFinished(const FinishInfo& info) {
  const bool ok = info.status == absl::StatusCode::kOk;
  Add(finished_[static_cast<size_t>(ok ? info.reason : FinishReason::kAbort)], 1);
  if (info.status == absl::StatusCode::kCancelled) {
    Add(cancelled_[static_cast<size_t>(info.phase)], 1);
  }
  if (info.status == absl::StatusCode::kDeadlineExceeded) {
    Add(deadlines_[static_cast<size_t>(info.phase)], 1);
  }
  queue_time_.Observe(info.timing.queue);
  if (!ok) return;  // the latencies of what was cut short say nothing about the service
  end_to_end_.Observe(info.end_to_end);
  prefill_time_.Observe(info.timing.prefill);
  decode_time_.Observe(info.timing.decode);
  request_prompt_tokens_.Observe(info.usage.prompt_tokens);
  request_generation_tokens_.Observe(info.usage.completion_tokens);
}

void Metrics::OnRejected(RejectReason reason) { Add(rejected_[static_cast<size_t>(reason)], 1); }

void Metrics::OnPreempted() { Add(preemptions_, 1); }

void Metrics::OnSnapshot(const char* op, bool ok) {
  MutexLock lock(&mu_);
  ++snapshots_[{op, ok ? "ok" : "error"}];
}

void Metrics::OnRpcDone(std::string_view method, absl::StatusCode code) {
  MutexLock lock(&mu_);
  ++rpcs_[{std::string(method), std::string(CodeName(code))}];
}

void Metrics::OnHttpDone(std::string_view path, int status) {
  MutexLock lock(&mu_);
  ++https_[{std::string(path), std::to_string(status)}];
}

void Metrics::CollectEngineGauges(std::vector<MetricFamily>* out) const {
  const Engine* const engine = engine_.load(std::memory_order_acquire);
  if (engine == nullptr) return;
  const EngineStats stats = engine->Stats();
  const BackendInfo& info = engine->backend_info();
  const double used = stats.slots_used;
  const double free = stats.num_slots - stats.slots_used;
  const auto bytes = static_cast<double>(info.state_bytes_per_sequence);
  FamilyBuilder(model_name_, out)
      .Begin(MetricType::Gauge, "vllm:num_requests_running", "Requests that have a state slot.")
      .Add(stats.num_running)
      .Begin(MetricType::Gauge, "vllm:num_requests_waiting", "Requests that wait for a state slot.")
      .Add(stats.num_waiting)
      .Begin(MetricType::Gauge, "vllm:kv_cache_usage_perc",
             "State slots in use, as a fraction of all; 1 means that new requests wait.")
      .Add(stats.num_slots > 0 ? used / stats.num_slots : 0)
      .Begin(MetricType::Gauge, "hgrn2_state_slots", "State slots by tier and use.")
      .Add(used, {{"tier", "device"}, {"state", "used"}})
      .Add(free, {{"tier", "device"}, {"state", "free"}})
      .Begin(MetricType::Gauge, "hgrn2_state_bytes", "Bytes of state slots by tier and use.")
      .Add(used * bytes, {{"tier", "device"}, {"state", "used"}})
      .Add(free * bytes, {{"tier", "device"}, {"state", "free"}})
      .Begin(MetricType::Gauge, "hgrn2_engine_heartbeat_age_seconds",
             "Time since the engine's loop last turned; it turns while idle too.")
      .Add(stats.seconds_since_heartbeat)
      .Begin(MetricType::Gauge, "hgrn2_build_info", "1; what runs is in the labels.")
      .Add(1, {{"version", ServerVersion()},
               {"device", info.device},
               {"dtype", Name(info.dtype)},
               {"state_dtype", Name(info.state_dtype)}});
}

void Metrics::CollectCounters(std::vector<MetricFamily>* out) const {
  FamilyBuilder builder(model_name_, out);
  builder.Begin(MetricType::Counter, "vllm:prompt_tokens_total", "Prompt tokens prefilled.")
      .Add(Value(prompt_tokens_))
      .Begin(MetricType::Counter, "vllm:generation_tokens_total", "Tokens generated.")
      // Every token is either a choice's first or has a latency to the one before it.
      .Add(static_cast<double>(time_to_first_token_.count() + inter_token_latency_.count()))
      .Begin(MetricType::Counter, "vllm:request_success_total",
             "Requests that have ended; abort: cancelled, out of time or failed.")
      .AddAll("finished_reason", kFinishReasons, finished_)
      .Begin(MetricType::Counter, "vllm:num_preemptions_total",
             "Running sequences whose slot was taken for a more urgent request.")
      .Add(Value(preemptions_))
      .Begin(MetricType::Counter, "hgrn2_requests_rejected_total",
             "Requests that were not taken, by reason.")
      .AddAll("reason", kRejectReasons, rejected_)
      .Begin(MetricType::Counter, "hgrn2_requests_cancelled_total",
             "Cancelled requests by the phase they were in.")
      .AddAll("phase", kPhases, cancelled_)
      .Begin(MetricType::Counter, "hgrn2_deadline_misses_total",
             "Requests that ran out of time, by the phase they were in.")
      .AddAll("phase", kPhases, deadlines_)
      .Begin(MetricType::Counter, "hgrn2_slow_reader_cancellations_total",
             "Streams cancelled because their reader left too much unread.")
      .Add(Value(slow_readers_))
      .Begin(MetricType::Counter, "hgrn2_traced_requests_total",
             "Requests with a span, by what became of it: sent to the collector, not taken by it, "
             "dropped because too many waited.")
      .AddAll("result", kTraceResults, traced_);
  const HttpServer* const http = http_.load(std::memory_order_acquire);
  builder.Begin(MetricType::Gauge, "hgrn2_http_connections", "Open HTTP connections.")
      .Add(http == nullptr ? 0 : static_cast<double>(http->num_connections()));
  MutexLock lock(&mu_);
  builder.Begin(MetricType::Counter, "hgrn2_snapshot_operations_total",
                "Copies of a state between device and host, by operation and result.");
  for (const auto& [key, n] : snapshots_) {
    builder.Add(static_cast<double>(n), {{"op", key.first}, {"result", key.second}});
  }
  builder.Begin(MetricType::Counter, "hgrn2_grpc_requests_total",
                "RPCs by method and status code.");
  for (const auto& [key, n] : rpcs_) {
    builder.Add(static_cast<double>(n), {{"method", key.first}, {"code", key.second}});
  }
  builder.Begin(MetricType::Counter, "hgrn2_http_requests_total", "HTTP requests.");
  for (const auto& [key, n] : https_) {
    builder.Add(static_cast<double>(n), {{"path", key.first}, {"status", key.second}});
  }
}

void Metrics::CollectHistograms(std::vector<MetricFamily>* out) const {
  FamilyBuilder(model_name_, out)
      .Begin(MetricType::Histogram, "vllm:time_to_first_token_seconds",
             "Submission to a choice's first token.")
      .Add(time_to_first_token_)
      .Begin(MetricType::Histogram, "vllm:inter_token_latency_seconds",
             "Time between a choice's tokens.")
      .Add(inter_token_latency_)
      .Begin(MetricType::Histogram, "vllm:e2e_request_latency_seconds",
             "Submission to end, of requests that succeeded.")
      .Add(end_to_end_)
      .Begin(MetricType::Histogram, "vllm:request_queue_time_seconds",
             "Submission to first schedule.")
      .Add(queue_time_)
      .Begin(MetricType::Histogram, "vllm:request_prefill_time_seconds",
             "First schedule to first token.")
      .Add(prefill_time_)
      .Begin(MetricType::Histogram, "vllm:request_decode_time_seconds", "First to last token.")
      .Add(decode_time_)
      .Begin(MetricType::Histogram, "vllm:request_prompt_tokens", "Prompt tokens per request.")
      .Add(request_prompt_tokens_)
      .Begin(MetricType::Histogram, "vllm:request_generation_tokens",
             "Generated tokens per request.")
      .Add(request_generation_tokens_)
      .Begin(MetricType::Histogram, "vllm:iteration_tokens_total",
             "Tokens per engine step, prefill and decode.")
      .Add(iteration_tokens_)
      .Begin(MetricType::Histogram, "hgrn2_batch_size", "Sequences per engine step.")
      .Add(batch_size_)
      .Begin(MetricType::Histogram, "hgrn2_step_seconds",
             "Engine step by phase: plan (schedule), device (enqueue to collected), apply "
             "(results to requests).")
      .Add(step_plan_, {{"phase", "plan"}})
      .Add(step_device_, {{"phase", "device"}})
      .Add(step_apply_, {{"phase", "apply"}});
}

std::vector<MetricFamily> Metrics::Collect() const {
  std::vector<MetricFamily> families;
  CollectEngineGauges(&families);
  CollectCounters(&families);
  CollectHistograms(&families);
  return families;
}

std::string Metrics::Serialize() const { return prometheus::TextSerializer().Serialize(Collect()); }

}  // namespace hgrn2
