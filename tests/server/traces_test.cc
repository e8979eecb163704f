// The real server and a collector: what arrives, and that a bad collector harms nobody.
#include <map>
#include <nlohmann/json.hpp>

#include "tests/server/fake_collector.h"
#include "tests/server/integration_fixture.h"

namespace hgrn2 {
namespace {

using namespace hgrn2::testing;  // NOLINT: the fixture's helpers
using nlohmann::json;

constexpr const char kTraceId[] = "4bf92f3577b34da6a3ce929d0e0e4736";

std::string Traceparent(bool sampled) {
  return fmt::format("00-{}-00f067aa0ba902b7-{}", kTraceId, sampled ? "01" : "00");
}

class TracesTest : public IntegrationTest {
 protected:
  void StartTraced(std::vector<std::string> flags = {}) {
    flags.insert(flags.end(),
                 {"--otlp-endpoint", collector_.url() + "/base", "--log-format", "json"});
    Start(std::move(flags));
  }
  Outcome Traced(const std::string& id, const std::string& traceparent, int max_tokens = 3) {
    grpc::ClientContext context;
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    v1::GenerateRequest request = Prompt("Once upon a time", max_tokens);
    request.set_request_id(id);
    Outcome outcome;
    ReadToEnd(*stub_->Generate(&context, request), &outcome);
    return outcome;
  }
  double Count(const std::string& result) {
    return Metric("hgrn2_traced_requests_total", "result=\"" + result + "\"");
  }
  // Server spans by request id.
  static std::map<std::string, json> ByRequest(const std::vector<json>& spans) {
    std::map<std::string, json> out;
    for (const json& span : spans) {
      if (span.at("kind") == 2) out[AttributesOf(span).at("hgrn2.request_id")] = span;
    }
    return out;
  }

  FakeCollector collector_;
};

TEST_F(TracesTest, RequestsOfEitherTransportArriveWithTheirPhases) {
  StartTraced();
  EXPECT_TRUE(Traced("by-grpc", Traceparent(true)).status.ok());
  EXPECT_TRUE(Traced("own-trace", "").status.ok());
  const HttpReply reply =
      HttpPost(server_->http_port(), "/v1/completions", R"({"prompt": "Once", "max_tokens": 2})",
               "X-Request-Id: by-http\r\nTraceparent: " + Traceparent(true) + "\r\n");
  EXPECT_EQ(reply.status, 200);
  const std::vector<json> spans = collector_.WaitForSpans(12);
  ASSERT_EQ(spans.size(), 12u);
  EXPECT_TRUE(collector_.heads()[0].starts_with("POST /base/v1/traces "));
  auto requests = ByRequest(spans);
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests["by-grpc"].at("name"), "hgrn2.v1.Inference/Generate");
  EXPECT_EQ(requests["by-http"].at("name"), "POST /v1/completions");
  for (const char* id : {"by-grpc", "by-http"}) {
    EXPECT_EQ(requests[id].at("traceId"), kTraceId);
    EXPECT_EQ(requests[id].at("parentSpanId"), "00f067aa0ba902b7");
  }
  EXPECT_NE(requests["own-trace"].at("traceId"), kTraceId);
  EXPECT_FALSE(requests["own-trace"].contains("parentSpanId"));
  const json attributes = AttributesOf(requests["by-grpc"]);
  EXPECT_EQ(attributes.at("gen_ai.request.model"), "hgrn2-gutenberg-12m");
  EXPECT_EQ(attributes.at("gen_ai.usage.output_tokens"), "3");
  EXPECT_EQ(attributes.at("rpc.grpc.status_code"), "0");
  for (auto& [id, server] : requests) {
    std::map<std::string, json> phases;
    for (const json& span : spans) {
      if (span.value("parentSpanId", "") == server.at("spanId")) phases[span.at("name")] = span;
    }
    ASSERT_EQ(phases.size(), 3u) << id;
    const auto at = [](const json& span, const char* key) {
      return std::stoll(span.at(key).get<std::string>());
    };
    EXPECT_GE(at(phases["queue"], "startTimeUnixNano"), at(server, "startTimeUnixNano"));
    EXPECT_EQ(at(phases["queue"], "endTimeUnixNano"), at(phases["prefill"], "startTimeUnixNano"));
    EXPECT_EQ(at(phases["prefill"], "endTimeUnixNano"), at(phases["decode"], "startTimeUnixNano"));
    EXPECT_EQ(at(phases["decode"], "endTimeUnixNano"), at(server, "endTimeUnixNano"));
    EXPECT_NE(server_->log().find("\"span_id\":\"" + server.at("spanId").get<std::string>() + "\""),
              std::string::npos)
        << "the log's line leads to the span";
  }
  EXPECT_TRUE(Eventually([&] { return Count("sent") == 3; }));
}

TEST_F(TracesTest, WhatIsNotSampledIsNotSent) {
  StartTraced({"--otlp-sample-ratio", "0"});
  EXPECT_TRUE(Traced("unsampled", Traceparent(false)).status.ok());
  EXPECT_TRUE(Traced("no-trace", "").status.ok());
  EXPECT_TRUE(Traced("sampled", Traceparent(true)).status.ok());
  EXPECT_EQ(collector_.WaitForSpans(4).size(), 4u);
  EXPECT_TRUE(Eventually([&] { return Count("sent") == 1; }));
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->WaitForExit(), 0);
  EXPECT_EQ(ByRequest(collector_.WaitForSpans(0)).size(), 1u);
}

TEST_F(TracesTest, TheLastRequestsOfADrainArrive) {
  StartTraced();
  auto running = Begin(Prompt("Once upon a time", 300));
  server_->Signal(SIGTERM);
  EXPECT_TRUE(running->Finish().status.ok());
  EXPECT_EQ(server_->WaitForExit(), 0);
  EXPECT_EQ(ByRequest(collector_.WaitForSpans(0)).size(), 1u);
}

// Requests go on as without traces, and so does the end of the server.
TEST_F(TracesTest, ABadCollectorHarmsNobody) {
  for (const char* kind : {"standing", "refusing", "gone"}) {
    FakeCollector bad;
    bad.AnswerWith(std::string(kind) == "standing" ? 0 : 500);
    std::string url = bad.url();
    if (std::string(kind) == "gone") url = FakeCollector().url();
    Start({"--otlp-endpoint", url});
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(Traced("", Traceparent(true)).status.ok()) << kind;
    if (std::string(kind) == "standing") {
      EXPECT_GE(bad.WaitForSpans(4).size(), 4u);
    } else {
      EXPECT_TRUE(Eventually([&] { return Count("failed") == 3; })) << kind;
      EXPECT_NE(server_->log().find("traces do not reach"), std::string::npos);
    }
    const auto begin = std::chrono::steady_clock::now();
    server_->Signal(SIGTERM);
    EXPECT_EQ(server_->WaitForExit(), 0) << kind;
    EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(10)) << kind;
  }
}

TEST_F(TracesTest, OffUnlessAsked) {
  Start();
  EXPECT_TRUE(Traced("a", Traceparent(true)).status.ok());
  EXPECT_EQ(Count("sent") + Count("failed") + Count("dropped"), 0);
  EXPECT_EQ(server_->log().find("span_id"), std::string::npos);
}

}  // namespace
}  // namespace hgrn2
