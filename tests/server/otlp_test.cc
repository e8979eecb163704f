// Traces: the encoding, and an exporter that must never be in the way.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "server/metrics.h"
#include "server/otlp/json_post.h"
#include "server/otlp/otlp_json.h"
#include "server/otlp/request_span.h"
#include "server/otlp/span_exporter.h"
#include "tests/server/fake_collector.h"

namespace hgrn2 {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AttributesOf;
using testing::FakeCollector;

constexpr const char kTraceId[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr const char kParentId[] = "00f067aa0ba902b7";
constexpr const char kSpanId[] = "53995c3f42cd8ad8";

TEST(HttpEndpointTest, ReadsPlainUrls) {
  const std::map<std::string, std::vector<std::string>> valid = {
      {"http://a", {"a", "80", "/"}},
      {"http://collector.ns.svc:4318", {"collector.ns.svc", "4318", "/"}},
      {"http://10.0.0.1:1/", {"10.0.0.1", "1", "/"}},
      {"http://h:65535/otlp/x", {"h", "65535", "/otlp/x"}},
      {"http://[::1]:4318/p", {"::1", "4318", "/p"}},
      {"http://[fe80::1]", {"fe80::1", "80", "/"}},
  };
  for (const auto& [url, expected] : valid) {
    const auto endpoint = ParseHttpEndpoint(url);
    ASSERT_TRUE(endpoint.has_value()) << url;
    EXPECT_EQ((std::vector<std::string>{endpoint->host, endpoint->port, endpoint->path}), expected);
  }
  for (const char* url : {"",
                          "http://",
                          "https://a",
                          "a:4318",
                          "http:/a",
                          "http://:4318",
                          "http://a:",
                          "http://a:0",
                          "http://a:65536",
                          "http://a:x",
                          "http://a:80:80",
                          "http://::1",
                          "http://[::1",
                          "http://[]",
                          "http://[a]b",
                          "http://user@a",
                          "http://a b",
                          "http://a/?q",
                          "http://a#f",
                          "http://a\r\nX: y",
                          "http://\xc3\xa9"}) {
    EXPECT_FALSE(ParseHttpEndpoint(url).has_value()) << url;
  }
}

RequestSpan Span(const absl::Status& status = absl::OkStatus(),
                 const Timing& timing = {.queue = 0.001, .prefill = 0.002, .decode = 0.0035}) {
  const Usage usage{.prompt_tokens = 3, .completion_tokens = 4, .cached_tokens = 0};
  const TraceContext trace{kTraceId, kParentId, true, kSpanId};
  return MakeRpcSpan("Generate", "an id", {status, usage, timing, 0.01, "user", trace});
}

std::vector<json> SpansOf(const RequestSpan& request) {
  const json body = json::parse(ToOtlpJson({"1.2.3", "pod-0", "m"}, {&request, 1}));
  return body.at("resourceSpans").at(0).at("scopeSpans").at(0).at("spans");
}

// Every number of 64 bits is a string of digits, every id lower-case hexadecimal, every enumeration
// a number, every key in lowerCamelCase: what distinguishes OTLP's JSON from what one would write.
TEST(OtlpJsonTest, FollowsTheEncodingsRules) {
  const RequestSpan request = Span(absl::InternalError("broken"));
  const json body = json::parse(ToOtlpJson({"1.2.3", "pod-0", "m"}, {&request, 1}));
  ASSERT_EQ(body.size(), 1u);
  const json& resource = body.at("resourceSpans").at(0);
  EXPECT_EQ(AttributesOf(resource.at("resource")), (json{{"service.name", "hgrn2-server"},
                                                         {"service.version", "1.2.3"},
                                                         {"host.name", "pod-0"}}));
  EXPECT_EQ(resource.at("scopeSpans").at(0).at("scope"),
            (json{{"name", "hgrn2-server"}, {"version", "1.2.3"}}));
  const json& spans = resource.at("scopeSpans").at(0).at("spans");
  ASSERT_EQ(spans.size(), 4u);
  const std::set<std::string> keys = {
      "traceId",           "spanId",          "parentSpanId", "name",  "kind",
      "startTimeUnixNano", "endTimeUnixNano", "attributes",   "status"};
  const std::regex digits("[0-9]{19}");
  for (const json& span : spans) {
    for (const auto& [key, value] : span.items()) EXPECT_TRUE(keys.contains(key)) << key;
    EXPECT_TRUE(
        std::regex_match(span.at("traceId").get<std::string>(), std::regex("[0-9a-f]{32}")));
    EXPECT_TRUE(std::regex_match(span.at("spanId").get<std::string>(), std::regex("[0-9a-f]{16}")));
    EXPECT_TRUE(span.at("kind").is_number_integer());
    EXPECT_TRUE(std::regex_match(span.at("startTimeUnixNano").get<std::string>(), digits));
    EXPECT_TRUE(std::regex_match(span.at("endTimeUnixNano").get<std::string>(), digits));
  }
  EXPECT_EQ(spans[0].at("status"), (json{{"code", 2}, {"message", "broken"}}));
  for (const json& attribute : spans[0].at("attributes")) {
    ASSERT_EQ(attribute.size(), 2u);
    const json& value = attribute.at("value");
    ASSERT_EQ(value.size(), 1u);
    const bool is_number = value.contains("intValue");
    EXPECT_TRUE(is_number || value.contains("stringValue")) << attribute;
    EXPECT_TRUE(value.begin().value().is_string()) << attribute;
  }
  const auto kind_of = [&](const char* key) {
    for (const json& a : spans[0].at("attributes")) {
      if (a.at("key") == key) return a.at("value").begin().key();
    }
    return std::string("absent");
  };
  EXPECT_EQ(kind_of("gen_ai.usage.input_tokens"), "intValue");
  EXPECT_EQ(kind_of("rpc.method"), "stringValue");
}

TEST(OtlpJsonTest, AServerSpanWithThePhasesAsChildren) {
  const std::vector<json> spans = SpansOf(Span());
  ASSERT_EQ(spans.size(), 4u);
  const json& server = spans[0];
  EXPECT_EQ(server.at("name"), "hgrn2.v1.Inference/Generate");
  EXPECT_EQ(server.at("kind"), 2);
  EXPECT_EQ(server.at("traceId"), kTraceId);
  EXPECT_EQ(server.at("spanId"), kSpanId);
  EXPECT_EQ(server.at("parentSpanId"), kParentId);
  EXPECT_FALSE(server.contains("status"));
  EXPECT_EQ(AttributesOf(server), (json{{"rpc.system", "grpc"},
                                        {"rpc.service", "hgrn2.v1.Inference"},
                                        {"rpc.method", "Generate"},
                                        {"rpc.grpc.status_code", "0"},
                                        {"gen_ai.operation.name", "text_completion"},
                                        {"gen_ai.provider.name", "hgrn2"},
                                        {"gen_ai.request.model", "m"},
                                        {"gen_ai.usage.input_tokens", "3"},
                                        {"gen_ai.usage.output_tokens", "4"},
                                        {"hgrn2.request_id", "an id"}}));
  const auto time = [](const json& span, const char* which) {
    return std::stoll(span.at(which).get<std::string>());
  };
  EXPECT_EQ(time(server, "endTimeUnixNano") - time(server, "startTimeUnixNano"), 10'000'000);
  const std::pair<const char*, int64_t> phases[] = {
      {"queue", 1'000'000}, {"prefill", 2'000'000}, {"decode", 3'500'000}};
  std::set<std::string> ids = {kSpanId};
  int64_t at = time(server, "endTimeUnixNano") - 6'500'000;
  for (size_t i = 0; i < 3; ++i) {
    const json& child = spans[i + 1];
    EXPECT_EQ(child.at("name"), phases[i].first);
    EXPECT_EQ(child.at("kind"), 1);
    EXPECT_EQ(child.at("traceId"), kTraceId);
    EXPECT_EQ(child.at("parentSpanId"), kSpanId);
    EXPECT_EQ(time(child, "startTimeUnixNano"), at);
    at += phases[i].second;
    EXPECT_EQ(time(child, "endTimeUnixNano"), at);
    EXPECT_TRUE(ids.insert(child.at("spanId")).second);
  }
}

TEST(OtlpJsonTest, OnlyThePhasesThatWereReachedAndWithinTheRequest) {
  const std::vector<json> queued = SpansOf(Span(absl::CancelledError("gone"), {.queue = 0.004}));
  ASSERT_EQ(queued.size(), 2u);
  EXPECT_EQ(queued[1].at("name"), "queue");
  EXPECT_EQ(SpansOf(Span(absl::ResourceExhaustedError("full"), {})).size(), 1u);
  // Several prompts: the longest of each phase, which together exceed the request's 10 ms.
  for (const json& span :
       SpansOf(Span(absl::OkStatus(), {.queue = 0.009, .prefill = 0.008, .decode = 0.009}))) {
    const auto at = [&](const char* key) { return std::stoll(span.at(key).get<std::string>()); };
    EXPECT_LE(at("startTimeUnixNano"), at("endTimeUnixNano"));
    EXPECT_LE(at("endTimeUnixNano") - at("startTimeUnixNano"), 10'000'000);
  }
}

TEST(OtlpJsonTest, WhoIsToBlameDecidesTheStatus) {
  EXPECT_TRUE(SpansOf(Span(absl::DeadlineExceededError("late")))[0].contains("status"));
  EXPECT_TRUE(SpansOf(Span(absl::UnavailableError("draining")))[0].contains("status"));
  const json refused = SpansOf(Span(absl::InvalidArgumentError("temperature: no")))[0];
  EXPECT_FALSE(refused.contains("status"));
  EXPECT_EQ(AttributesOf(refused).at("error.type"), "INVALID_ARGUMENT");
  EXPECT_EQ(AttributesOf(refused).at("rpc.grpc.status_code"), "3");
  const TraceContext root{kTraceId, "", true, kSpanId};
  const absl::Status status = absl::ResourceExhaustedError("queue full");
  const json http =
      SpansOf(MakeHttpSpan("/v1/chat/completions", "id", 429, {status, {}, {}, 0.1, "", root}))[0];
  EXPECT_EQ(http.at("name"), "POST /v1/chat/completions");
  EXPECT_FALSE(http.contains("parentSpanId"));
  EXPECT_FALSE(http.contains("status"));
  EXPECT_EQ(AttributesOf(http).at("http.response.status_code"), "429");
  EXPECT_EQ(AttributesOf(http).at("gen_ai.operation.name"), "chat");
}

TEST(OtlpJsonTest, WhatAClientSendsStaysAString) {
  const TraceContext trace{kTraceId, "", true, kSpanId};
  const absl::Status status = absl::InternalError("\xff\"}],\n");
  const std::string id = std::string("\"\\\xc3\n\x01") + std::string(5000, 'x');
  const json span = SpansOf(MakeRpcSpan("Complete", id, {status, {}, {}, 0, "", trace}))[0];
  const std::string shown = AttributesOf(span).at("hgrn2.request_id");
  EXPECT_TRUE(shown.starts_with("\"\\?"));
  EXPECT_LE(shown.size(), 310u);
  EXPECT_EQ(span.at("status").at("message"), "?\"}],\n");
}

class SpanExporterTest : public ::testing::Test {
 protected:
  SpanExporterOptions Options(const std::string& url) {
    SpanExporterOptions options;
    options.endpoint = *ParseHttpEndpoint(url + "/v1/traces");
    options.source = {"1.2.3", "pod-0", "m"};
    options.interval = milliseconds(20);
    options.on_result = [this](TraceResult result, uint64_t n) { metrics_.OnTraced(result, n); };
    return options;
  }
  double Count(const std::string& result) {
    const std::string text = metrics_.Serialize();
    const std::string key =
        "\nhgrn2_traced_requests_total{model_name=\"m\",result=\"" + result + "\"} ";
    return std::strtod(text.c_str() + text.find(key) + key.size(), nullptr);
  }
  bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) std::this_thread::sleep_for(milliseconds(20));
    return condition();
  }
  static Duration TimeOf(const std::function<void()>& action) {
    const auto begin = std::chrono::steady_clock::now();
    action();
    return std::chrono::steady_clock::now() - begin;
  }

  Metrics metrics_{"m"};
  FakeCollector collector_;
};

TEST_F(SpanExporterTest, TheCallersFlagDecidesElseTheRatio) {
  SpanExporterOptions options = Options(collector_.url());
  options.sample_ratio = 0.25;
  const SpanExporter some(options);
  TraceContext sampled{kTraceId, kParentId, true, ""};
  some.Begin(&sampled);
  EXPECT_EQ(sampled.span_id.size(), 16u);
  EXPECT_EQ(sampled.trace_id, kTraceId);
  TraceContext unsampled{kTraceId, kParentId, false, ""};
  some.Begin(&unsampled);
  EXPECT_TRUE(unsampled.span_id.empty());
  std::set<std::string> traces;
  for (int i = 0; i < 4000; ++i) {
    TraceContext own;
    some.Begin(&own);
    EXPECT_EQ(own.span_id.empty(), own.trace_id.empty());
    EXPECT_EQ(own.sampled, !own.trace_id.empty());
    if (own.sampled) traces.insert(own.trace_id);
  }
  EXPECT_NEAR(static_cast<double>(traces.size()), 1000, 150);
  EXPECT_EQ(traces.begin()->size(), 32u);
  for (const double ratio : {0.0, 1.0}) {
    options.sample_ratio = ratio;
    const SpanExporter exporter(options);
    TraceContext own;
    exporter.Begin(&own);
    EXPECT_EQ(own.sampled, ratio == 1);
  }
}

TEST_F(SpanExporterTest, SendsBatches) {
  SpanExporterOptions options = Options(collector_.url());
  options.max_batch = 10;
  SpanExporter exporter(options);
  for (int i = 0; i < 25; ++i) exporter.Add(Span());
  EXPECT_EQ(collector_.WaitForSpans(100).size(), 100u);
  EXPECT_TRUE(Eventually([&] { return Count("sent") == 25; }));
  const std::vector<std::string> heads = collector_.heads();
  EXPECT_GE(heads.size(), 3u);
  EXPECT_TRUE(heads[0].starts_with("POST /v1/traces HTTP/1.1\r\n")) << heads[0];
  EXPECT_NE(heads[0].find("\r\nContent-Type: application/json\r\n"), std::string::npos) << heads[0];
  EXPECT_EQ(Count("failed"), 0);
  EXPECT_EQ(Count("dropped"), 0);
}

TEST_F(SpanExporterTest, TheLastOnesAreSentBeforeTheEnd) {
  SpanExporterOptions options = Options(collector_.url());
  options.interval = seconds(60);
  options.max_batch = 2;
  SpanExporter exporter(options);
  for (int i = 0; i < 5; ++i) exporter.Add(Span());
  EXPECT_LT(TimeOf([&] { exporter.Stop(seconds(30)); }), seconds(10));
  EXPECT_EQ(collector_.WaitForSpans(0).size(), 20u);
  EXPECT_EQ(Count("sent"), 5);
  exporter.Add(Span());  // too late: as if it had not fit
  EXPECT_EQ(Count("dropped"), 1);
}

TEST_F(SpanExporterTest, AStandingCollectorCostsTracesAndNothingElse) {
  collector_.AnswerWith(0);
  SpanExporterOptions options = Options(collector_.url());
  options.max_queued = 10;
  options.max_batch = 5;
  SpanExporter exporter(options);
  exporter.Add(Span());
  ASSERT_EQ(collector_.WaitForSpans(4).size(), 4u);  // the thread now waits for the answer
  EXPECT_LT(TimeOf([&] {
              for (int i = 0; i < 1000; ++i) exporter.Add(Span());
            }),
            seconds(2));
  EXPECT_EQ(Count("dropped"), 990);
  EXPECT_LT(TimeOf([&] { exporter.Stop(milliseconds(100)); }), milliseconds(1500));
}

TEST_F(SpanExporterTest, ASlowCollectorFailsAtTheTimeLimit) {
  collector_.AnswerWith(0);
  SpanExporterOptions options = Options(collector_.url());
  options.timeout = milliseconds(100);
  SpanExporter exporter(options);
  exporter.Add(Span());
  EXPECT_TRUE(Eventually([&] { return Count("failed") == 1; }));
  EXPECT_EQ(Count("sent"), 0);
}

TEST_F(SpanExporterTest, RefusedBatchesAreCountedAndTheNextOnesSent) {
  for (const int status : {500, 503, 404, 301}) {
    const double before = Count("failed");
    collector_.AnswerWith(status);
    SpanExporter exporter(Options(collector_.url()));
    exporter.Add(Span());
    EXPECT_TRUE(Eventually([&] { return Count("failed") == before + 1; })) << status;
    collector_.AnswerWith(200);
    const double sent = Count("sent");
    exporter.Add(Span());
    EXPECT_TRUE(Eventually([&] { return Count("sent") == sent + 1; })) << status;
  }
}

TEST_F(SpanExporterTest, NoCollectorIsNoDelay) {
  const std::string gone = [] { return FakeCollector().url(); }();
  for (const std::string& url : {gone, std::string("http://collector.invalid:4318")}) {
    const double before = Count("failed");
    SpanExporter exporter(Options(url));
    exporter.Add(Span());
    EXPECT_TRUE(Eventually([&] { return Count("failed") == before + 1; })) << url;
    exporter.Add(Span());
    EXPECT_LT(TimeOf([&] { exporter.Stop(milliseconds(200)); }), milliseconds(1500)) << url;
  }
}

TEST_F(SpanExporterTest, ManyThreadsAddWhileItStops) {
  SpanExporter exporter(Options(collector_.url()));
  std::atomic<int> added{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        exporter.Add(Span());
        ++added;
      }
    });
  }
  while (added < 100) std::this_thread::yield();
  exporter.Stop(seconds(20));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Count("sent") + Count("dropped"), 800);
}

}  // namespace
}  // namespace hgrn2
