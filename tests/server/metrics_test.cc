#include "server/metrics.h"

#include <gtest/gtest.h>
#include <prometheus/metric_family.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "server/atomic_histogram.h"
#include "server/http/http_server.h"
#include "server/ops_routes.h"
#include "server/rpc_call.h"
#include "tests/engine/fake_backend.h"
#include "tests/server/fake_engine.h"
#include "tests/server/http_client.h"

namespace hgrn2 {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;
using testing::FakeBackend;
using testing::FakeEngine;

// "name{label=value,...}" to value, or to the number of observations.
using Series = std::map<std::string, double>;

Series Read(const Metrics& metrics) {
  Series series;
  for (const MetricFamily& family : metrics.Collect()) {
    for (const auto& metric : family.metric) {
      std::string name = family.name + "{";
      for (const auto& label : metric.label) name += label.name + "=" + label.value + ",";
      name += "}";
      series[name] = family.type == MetricType::Histogram
                         ? static_cast<double>(metric.histogram.sample_count)
                     : family.type == MetricType::Counter ? metric.counter.value
                                                          : metric.gauge.value;
    }
  }
  return series;
}

class IgnoringSink : public TokenSink {
 public:
  void OnDone(const absl::Status&, const Usage&, const Timing&) override {}
};

// A real engine, stepped by the test, over a device without a model.
class MetricsOfAnEngine : public ::testing::Test {
 protected:
  MetricsOfAnEngine() {
    FakeBackend::Options backend;
    backend.clock = &clock_;
    backend.num_slots = 2;
    backend.max_batched_tokens = 16;
    EngineOptions options;
    options.clock = &clock_;
    options.observer = &metrics_;
    options.manual_stepping = true;
    options.max_num_queued_reqs = 4;
    engine_ = Engine::Create(std::make_unique<FakeBackend>(backend), options);
    metrics_.AttachEngine(engine_.get());
  }
  RequestHandle Submit(int prompt_tokens, int max_tokens, Duration timeout = kNoTimeout,
                       int priority = 0, std::vector<int32_t> stop = {}) {
    EngineRequest request;
    request.prompt.assign(prompt_tokens, 1);
    request.max_tokens = max_tokens;
    request.priority = priority;
    request.stop_token_ids = std::move(stop);
    if (timeout != kNoTimeout) request.deadline = clock_.Now() + timeout;
    request.sink = std::make_shared<IgnoringSink>();
    const auto handle = engine_->Submit(std::move(request));
    if (!handle.ok()) last_refusal_ = handle.status();
    return handle.value_or(0);
  }
  void Step(int n = 1) {
    for (int i = 0; i < n; ++i) engine_->StepOnce();
    Look();
  }
  void RunUntilIdle() {
    while (engine_->StepOnce()) {
    }
    Look();
  }
  // Remembers every value that a series ever had.
  void Look() {
    for (const auto& [name, value] : Read(metrics_)) seen_[name].insert(value);
  }

  static constexpr Duration kNoTimeout = Duration::max();
  FakeClock clock_;
  Metrics metrics_{"m"};
  std::unique_ptr<Engine> engine_;
  absl::Status last_refusal_;
  std::map<std::string, std::set<double>> seen_;
};

// A metric that nothing moves is a promise that nobody keeps: this test has no list of exceptions
// but the constant build information.
TEST_F(MetricsOfAnEngine, EveryMetricMoves) {
  Look();
  // Ends by length, by stop token, and by a drain's time-out (below).
  Submit(3, 4);
  RunUntilIdle();
  std::vector<int32_t> any(testing::kFakeVocab);
  for (size_t i = 0; i < any.size(); ++i) any[i] = static_cast<int32_t>(i);
  Submit(3, 4, kNoTimeout, 0, any);
  RunUntilIdle();
  // Cancelled while decoding, in prefill (40 tokens are three steps) and in the queue.
  const RequestHandle decoding = Submit(1, 1000);
  Step(3);
  engine_->Cancel(decoding);
  RunUntilIdle();
  const RequestHandle prefilling = Submit(40, 10);
  Step();
  engine_->Cancel(prefilling);
  RunUntilIdle();
  const RequestHandle first = Submit(1, 1000), second = Submit(1, 1000);
  Step();
  const RequestHandle queued = Submit(1, 10);
  Step();
  engine_->Cancel(queued);
  Step();
  // A deadline missed in the queue, with both slots taken.
  Submit(1, 10, std::chrono::milliseconds(2));
  Step(5);
  // A full queue.
  for (int i = 0; i < 6; ++i) Submit(1, 1);
  EXPECT_EQ(last_refusal_.code(), absl::StatusCode::kResourceExhausted);
  // A more urgent request takes a slot: one state saved, later restored.
  engine_->Cancel(second);
  RunUntilIdle();
  Submit(1, 50, kNoTimeout, 10);
  Submit(1, 50, kNoTimeout, 10);
  Step(3);
  Submit(1, 5, kNoTimeout, -10);
  RunUntilIdle();
  engine_->Cancel(first);
  // Deadlines missed in prefill, while decoding, and before submission.
  Submit(400, 10, std::chrono::milliseconds(3));
  RunUntilIdle();
  Submit(1, 1000, std::chrono::milliseconds(5));
  RunUntilIdle();
  Submit(1, 1, std::chrono::milliseconds(-1));
  EXPECT_EQ(last_refusal_.code(), absl::StatusCode::kDeadlineExceeded);
  engine_->Drain(Duration::zero());
  Submit(1, 1);
  EXPECT_EQ(last_refusal_.code(), absl::StatusCode::kUnavailable);
  // The transports, as far as they reach without a client: see integration_test.cc for the rest.
  ServiceContext context;
  context.metrics = &metrics_;
  CallRecord(context, "Generate").Done(absl::OkStatus());
  metrics_.OnSlowReader();
  for (const TraceResult result :
       {TraceResult::kSent, TraceResult::kFailed, TraceResult::kDropped}) {
    metrics_.OnTraced(result, 1);
  }
  std::atomic<bool> ready{true};
  HttpRouter router;
  AddOpsRoutes({engine_.get(), &metrics_, &ready, 30}, &router);
  HttpServerOptions http;
  http.host = "127.0.0.1";
  http.on_answered = [this](std::string_view path, int status) {
    metrics_.OnHttpDone(path, status);
  };
  auto server = HttpServer::Start(http, std::move(router));
  ASSERT_TRUE(server.ok());
  metrics_.AttachHttp(server->get());
  testing::RawClient client((*server)->port());
  client.Send("GET /version HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.Read().status, 200);
  Look();
  metrics_.AttachHttp(nullptr);
  server->reset();
  Look();

  std::set<std::string> families;
  for (const auto& [name, values] : seen_) families.insert(name.substr(0, name.find('{')));
  for (const MetricFamily& family : metrics_.Collect()) {
    EXPECT_TRUE(families.contains(family.name)) << family.name << " never had a value";
  }
  const std::set<std::string> start_at_one = {
      "hgrn2_snapshot_operations_total", "hgrn2_grpc_requests_total", "hgrn2_http_requests_total"};
  for (const auto& [name, values] : seen_) {
    const std::string family = name.substr(0, name.find('{'));
    if (family == "hgrn2_build_info") continue;
    // Series that appear with their first event have moved by being there.
    if (start_at_one.contains(family)) continue;
    EXPECT_GE(values.size(), 2u) << name << " stayed at " << *values.begin();
  }
}

TEST_F(MetricsOfAnEngine, CountsAreExact) {
  Submit(3, 4);
  Submit(5, 2);
  RunUntilIdle();
  const Series series = Read(metrics_);
  const auto value = [&](const std::string& name, const std::string& labels = "") {
    const auto found = series.find(name + "{model_name=m," + labels + "}");
    EXPECT_NE(found, series.end()) << name;
    return found == series.end() ? NAN : found->second;
  };
  EXPECT_EQ(value("vllm:prompt_tokens_total"), 8);
  EXPECT_EQ(value("vllm:generation_tokens_total"), 6);
  EXPECT_EQ(value("vllm:request_success_total", "finished_reason=length,"), 2);
  EXPECT_EQ(value("vllm:time_to_first_token_seconds"), 2);
  EXPECT_EQ(value("vllm:inter_token_latency_seconds"), 4);
  EXPECT_EQ(value("vllm:e2e_request_latency_seconds"), 2);
  EXPECT_EQ(value("vllm:request_prompt_tokens"), 2);
  EXPECT_EQ(value("vllm:num_requests_running"), 0);
  EXPECT_EQ(value("vllm:kv_cache_usage_perc"), 0);
  EXPECT_EQ(value("hgrn2_state_slots", "tier=device,state=free,"), 2);
  EXPECT_EQ(value("hgrn2_batch_size"), value("vllm:iteration_tokens_total"));
}

TEST_F(MetricsOfAnEngine, APreemptedRequestsTokensAreCountedOnce) {
  Submit(1, 50, kNoTimeout, 10);
  Submit(1, 50, kNoTimeout, 10);
  Step(3);
  Submit(1, 5, kNoTimeout, -10);
  RunUntilIdle();
  Series series = Read(metrics_);
  EXPECT_GE(series["vllm:num_preemptions_total{model_name=m,}"], 1);
  EXPECT_EQ(series["vllm:generation_tokens_total{model_name=m,}"], 105);
}

TEST(MetricsTest, DocumentationListsExactlyWhatIsExported) {
  std::stringstream text;
  text << std::ifstream(HGRN2_SOURCE_DIR "/docs/metrics.md").rdbuf();
  const std::string document = text.str();
  FakeEngine engine;
  Metrics metrics("m");
  metrics.AttachEngine(&engine);
  size_t rows = 0;
  for (size_t at = 0; (at = document.find("\n| `", at)) != std::string::npos; ++at) ++rows;
  EXPECT_EQ(rows, metrics.Collect().size());
  for (const MetricFamily& family : metrics.Collect()) {
    EXPECT_NE(document.find("\n| `" + family.name + "` |"), std::string::npos) << family.name;
  }
}

TEST(MetricsTest, GaugesComeFromTheEngine) {
  FakeEngine engine;
  engine.stats = {5, 7, 3, 4, 100, 0.5, false, false};
  engine.info.state_bytes_per_sequence = 1000;
  Metrics metrics("m");
  metrics.AttachEngine(&engine);
  const std::string text = metrics.Serialize();
  for (const char* line : {
           "vllm:num_requests_running{model_name=\"m\"} 5\n",
           "vllm:num_requests_waiting{model_name=\"m\"} 7\n",
           "vllm:kv_cache_usage_perc{model_name=\"m\"} 0.75\n",
           "hgrn2_state_slots{model_name=\"m\",tier=\"device\",state=\"used\"} 3\n",
           "hgrn2_state_slots{model_name=\"m\",tier=\"device\",state=\"free\"} 1\n",
           "hgrn2_state_bytes{model_name=\"m\",tier=\"device\",state=\"used\"} 3000\n",
           "# TYPE vllm:num_requests_running gauge\n",
           "# TYPE vllm:prompt_tokens_total counter\n",
           "# TYPE vllm:iteration_tokens_total histogram\n",
       }) {
    EXPECT_NE(text.find(line), std::string::npos) << line << "is not in\n" << text;
  }
}

TEST(AtomicHistogramTest, BucketsAreCumulativeAndClosedAbove) {
  AtomicHistogram histogram({1, 2, 4});
  for (const double value : {0.5, 1.0, 1.5, 4.0, 100.0}) histogram.Observe(value);
  const auto metric = histogram.Collect();
  ASSERT_EQ(metric.histogram.bucket.size(), 4u);
  EXPECT_EQ(metric.histogram.bucket[0].cumulative_count, 2u);
  EXPECT_EQ(metric.histogram.bucket[1].cumulative_count, 3u);
  EXPECT_EQ(metric.histogram.bucket[2].cumulative_count, 4u);
  EXPECT_EQ(metric.histogram.bucket[3].cumulative_count, 5u);
  EXPECT_TRUE(std::isinf(metric.histogram.bucket[3].upper_bound));
  EXPECT_EQ(metric.histogram.sample_count, 5u);
  EXPECT_DOUBLE_EQ(metric.histogram.sample_sum, 107.0);
  EXPECT_EQ(histogram.count(), 5u);
}

TEST(AtomicHistogramTest, ObservationsOfManyThreadsAllCount) {
  AtomicHistogram histogram({1, 2});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) histogram.Observe(i % 3);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(histogram.count(), 40000u);
  EXPECT_DOUBLE_EQ(histogram.Collect().histogram.sample_sum, 4 * 9999.0);
}

// Dashboards made for vLLM compute quantiles from these bounds.
TEST(AtomicHistogramTest, BoundsIncludeVllmsAndReachBelowAMillisecond) {
  const std::vector<double> ttft = {0.001, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08, 0.1,
                                    0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,  10.0,
                                    20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
  const std::vector<double> itl = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,  0.3,  0.4, 0.5,
                                   0.75, 1.0,   2.5,  5.0,   7.5, 10.0, 20.0, 40.0, 80.0};
  const std::vector<double> latency = {0.3,  0.5,   0.8,   1.0,   1.5,   2.0,    2.5,
                                       5.0,  10.0,  15.0,  20.0,  30.0,  40.0,   50.0,
                                       60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
  const auto check = [](const std::vector<double>& ours, const std::vector<double>& vllms) {
    EXPECT_TRUE(std::is_sorted(ours.begin(), ours.end()));
    EXPECT_TRUE(std::includes(ours.begin(), ours.end(), vllms.begin(), vllms.end()));
    EXPECT_LT(ours.front(), 0.001);
  };
  check(TimeToFirstTokenBounds(), ttft);
  check(InterTokenLatencyBounds(), itl);
  check(RequestLatencyBounds(), latency);
  EXPECT_EQ(OneTwoFiveBounds(100), (std::vector<double>{1, 2, 5, 10, 20, 50, 100}));
}

}  // namespace
}  // namespace hgrn2
