// Prometheus metrics of the server: what the engine reports as it runs, what RPCs come to, and
// gauges read from the engine at the time of a scrape. Names and labels: docs/metrics.md.
#pragma once

#include <prometheus/metric_family.h>

#include <array>
#include <atomic>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "engine/engine.h"
#include "server/atomic_histogram.h"
#include "server/http/http_server.h"
#include "server/otlp/span_exporter.h"

namespace hgrn2 {

// Thread-safe; one object may observe several engines.
class Metrics : public EngineObserver {
 public:
  explicit Metrics(std::string model_name);

  // Until then the gauges and build information are left out. `engine` outlives the last Collect.
  void AttachEngine(const Engine* engine) { engine_.store(engine, std::memory_order_release); }

  // The source of the number of open HTTP connections; null: there are none. `server` outlives the
  // last Collect, or is detached.
  void AttachHttp(const HttpServer* server) { http_.store(server, std::memory_order_release); }

  // EngineObserver
  void OnStep(const StepInfo& step) override;
  void OnFirstToken(double time_to_first_token) override;
  void OnInterTokenLatency(double seconds) override;
  void OnPrefilled(int32_t prompt_tokens) override;
  void OnFinished(const FinishInfo& info) override;
  void OnRejected(RejectReason reason) override;
  void OnPreempted() override;
  void OnSnapshot(const char* op, bool ok) override;

  // An RPC ended. method: "Generate".
  void OnRpcDone(std::string_view method, absl::StatusCode code);
  // A stream was cancelled because its reader left too much unread.
  void OnSlowReader() { Add(slow_readers_, 1); }
  // path is one of the router's, or "other".
  void OnHttpDone(std::string_view path, int status);
  void OnTraced(TraceResult result, uint64_t n) { Add(traced_[static_cast<size_t>(result)], n); }

  std::vector<prometheus::MetricFamily> Collect() const;
  // The text exposition format.
  std::string Serialize() const;

 private:
  using Counter = std::atomic<uint64_t>;
  static void Add(Counter& counter, uint64_t n) { counter.fetch_add(n, std::memory_order_relaxed); }

  void CollectEngineGauges(std::vector<prometheus::MetricFamily>* out) const;
  void CollectCounters(std::vector<prometheus::MetricFamily>* out) const;
  void CollectHistograms(std::vector<prometheus::MetricFamily>* out) const;

  const std::string model_name_;
  std::atomic<const Engine*> engine_{nullptr};
  std::atomic<const HttpServer*> http_{nullptr};

  Counter prompt_tokens_{0};
  Counter preemptions_{0};
  Counter slow_readers_{0};
  std::array<Counter, 3> finished_{};   // by FinishReason
  std::array<Counter, 3> cancelled_{};  // by Phase
  std::array<Counter, 3> deadlines_{};  // by Phase
  std::array<Counter, 3> rejected_{};   // by RejectReason
  std::array<Counter, 3> traced_{};     // by TraceResult

  AtomicHistogram time_to_first_token_{TimeToFirstTokenBounds()};
  AtomicHistogram inter_token_latency_{InterTokenLatencyBounds()};
  AtomicHistogram end_to_end_{RequestLatencyBounds()};
  AtomicHistogram queue_time_{RequestLatencyBounds()};
  AtomicHistogram prefill_time_{RequestLatencyBounds()};
  AtomicHistogram decode_time_{RequestLatencyBounds()};
  AtomicHistogram request_prompt_tokens_{OneTwoFiveBounds(1e6)};
  AtomicHistogram request_generation_tokens_{OneTwoFiveBounds(1e6)};
  AtomicHistogram iteration_tokens_{IterationTokensBounds()};
  AtomicHistogram batch_size_{OneTwoFiveBounds(5000)};
  AtomicHistogram step_plan_{StepTimeBounds()};
  AtomicHistogram step_device_{StepTimeBounds()};
  AtomicHistogram step_apply_{StepTimeBounds()};

  // Series whose labels are known only once they happen; off the hot path.
  using LabelPair = std::pair<std::string, std::string>;
  mutable Mutex mu_;
  std::map<LabelPair, uint64_t> snapshots_ ABSL_GUARDED_BY(mu_);  // op, result
  std::map<LabelPair, uint64_t> rpcs_ ABSL_GUARDED_BY(mu_);       // method, code
  std::map<LabelPair, uint64_t> https_ ABSL_GUARDED_BY(mu_);      // path, status
};

}  // namespace hgrn2
