// The load path over HTTP and server-sent events, against a server with scripted delays.
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "client/http_get.h"
#include "client/load/backend.h"
#include "client/load/run_report.h"
#include "tests/client/load_harness.h"
#include "tests/client/scripted_http_server.h"

namespace hgrn2::client {
namespace {

Script ThreeTokens(const v1::GenerateRequest&, SteadyTime) { return Tokens({0.0, 0.01, 0.02}); }

template <typename Condition>
bool Eventually(Condition condition) {
  for (int i = 0; i < 1000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return condition();
}

TEST(LoadHttp, ReportsKnownDelaysToOnePercent) {
  WithinOnePercent([&](std::string* which) {
    ScriptedHttpServer server([&](const auto& request, SteadyTime) {
      const auto x = static_cast<double>(SessionOf(request));
      return Tokens({0.4 + 0.01 * x, 0.6 + 0.014 * x, 0.802 + 0.018 * x});
    });
    LoadOptions o = MakeLoadOptions({server.url()});
    o.workload.rate = "20";
    o.workload.arrival = ArrivalKind::kConstant;
    o.runner.max_requests = 60;
    const RunResult result = RunLoad(o);
    EXPECT_EQ(result.recorder.completed, 60u);
    EXPECT_EQ(result.recorder.output_tokens, 180u);
    const Expected expected = FromServer(result, server.served());
    EXPECT_GE(Percentile(expected.ttft_ms, 0.5), 695);
    if (Percentile(expected.itl_ms, 0.5) < 319) {
      *which = "the server's own gaps were disturbed";
      return 1.0;
    }
    return WorstError(ToJson(result, {}), expected, which);
  });
}

// As over gRPC: requests due while the server stands still show their whole wait.
TEST(LoadHttp, AStallIsCountedFromTheIntendedSendTime) {
  WithinOnePercent([&](std::string* which) {
    std::atomic<int64_t> first_ns{0};
    ScriptedHttpServer server([&](const auto&, SteadyTime arrived) {
      const int64_t now = arrived.time_since_epoch().count();
      int64_t unset = 0;
      first_ns.compare_exchange_strong(unset, now);
      const double t = static_cast<double>(now - first_ns) * 1e-9;
      const double delay = t >= 1.05 && t < 2.55 ? 2.55 - t + 0.3 : 0.3;
      return Tokens({delay, delay + 0.3, delay + 0.6});
    });
    LoadOptions o = MakeLoadOptions({server.url()});
    o.workload.rate = "10";
    o.workload.arrival = ArrivalKind::kConstant;
    o.runner.max_requests = 40;
    const RunResult result = RunLoad(o);
    const auto json = ToJson(result, {});
    EXPECT_NEAR(json.at("p90_ttft_ms").get<double>(), 1360, 60);
    EXPECT_NEAR(json.at("p50_ttft_ms").get<double>(), 300, 60);
    return WorstError(json, FromServer(result, server.served()), which);
  });
}

TEST(LoadHttp, CountsTokensInEveryStyleOfAnswer) {
  for (const HttpStyle style : {HttpStyle::kVllm, HttpStyle::kPlain, HttpStyle::kNoStream,
                                HttpStyle::kUntilEnd, HttpStyle::kDropsKept}) {
    SCOPED_TRACE(static_cast<int>(style));
    ScriptedHttpServer server(ThreeTokens, {.style = style});
    LoadOptions o = MakeLoadOptions({server.url()});
    o.runner.max_requests = 12;
    o.runner.max_concurrency = 3;
    const RunResult result = RunLoad(o);
    EXPECT_EQ(result.recorder.completed, 12u);
    EXPECT_EQ(result.recorder.failed, 0u);
    EXPECT_EQ(result.recorder.output_tokens, 36u);
    EXPECT_EQ(result.recorder.prompt_tokens, 96u);
    EXPECT_EQ(result.recorder.cached_tokens, 48u);
    EXPECT_EQ(result.recorder.messages, style == HttpStyle::kNoStream ? 12u : 36u);
    if (style == HttpStyle::kVllm || style == HttpStyle::kPlain) {
      EXPECT_EQ(server.connections(), 3);  // kept
    }
  }
}

TEST(LoadHttp, RequestsSayWhatTheFlagsSay) {
  ScriptedHttpServer server(ThreeTokens);
  LoadOptions o = MakeLoadOptions({server.url() + "/v1"});
  o.base.mutable_sampling()->set_temperature(0.5);
  o.base.mutable_sampling()->set_top_k(7);
  o.base.mutable_sampling()->set_ignore_eos(true);
  o.runner.max_requests = 1;
  o.runner.max_concurrency = 1;
  o.workload.priorities = {{3, 1.0}};
  ASSERT_TRUE(AskModel(&o).ok());
  EXPECT_EQ(o.model_name, "scripted");
  EXPECT_EQ(RunLoad(o).recorder.completed, 1u);
  const HttpSeen vllm = server.requests().at(0);
  EXPECT_EQ(vllm.target, "POST /v1/completions");
  EXPECT_EQ(vllm.body["model"], "scripted");
  EXPECT_EQ(vllm.body["temperature"], 0.5);
  EXPECT_EQ(vllm.body["top_k"], 7);
  EXPECT_EQ(vllm.body["ignore_eos"], true);
  EXPECT_EQ(vllm.body["max_tokens"], 3);
  EXPECT_EQ(vllm.body["priority"], 3);
  EXPECT_EQ(vllm.body["prompt"].size(), 8u);
  EXPECT_EQ(vllm.body["stream_options"]["continuous_usage_stats"], true);
  EXPECT_FALSE(vllm.body.contains("return_token_ids"));

  o.only_openai_fields = true;
  o.backend = LoadBackend::kOpenAiChat;
  o.endpoint = "/other/chat";
  EXPECT_EQ(RunLoad(o).recorder.output_tokens, 3u);
  const HttpSeen openai = server.requests().at(1);
  EXPECT_EQ(openai.target, "POST /v1/other/chat");
  EXPECT_EQ(openai.body["messages"][0]["role"], "user");
  EXPECT_FALSE(openai.body["messages"][0]["content"].get<std::string>().empty());
  EXPECT_EQ(openai.body["temperature"], 0.5);
  for (const char* name : {"top_k", "ignore_eos", "priority", "prompt"}) {
    EXPECT_FALSE(openai.body.contains(name)) << name;
  }
  EXPECT_EQ(openai.body["stream_options"].size(), 1u);
}

TEST(LoadHttp, ErrorsAreListedByHttpStatus) {
  ScriptedHttpServer server([](const auto& request, SteadyTime) {
    Script script = Tokens({0.0, 0.01});
    const uint64_t i = SessionOf(request);
    if (i % 10 == 3) {
      script.http_status = 429;
      script.status = {grpc::StatusCode::UNKNOWN, "queue full"};
    }
    if (i % 10 == 4) script.status = {grpc::StatusCode::UNKNOWN, "it broke"};  // in the stream
    return script;
  });
  LoadOptions o = MakeLoadOptions({server.url()});
  o.runner.max_concurrency = 5;
  o.runner.max_requests = 50;
  const RunResult result = RunLoad(o);
  EXPECT_EQ(result.recorder.completed, 40u);
  EXPECT_EQ(result.recorder.failed, 10u);
  EXPECT_EQ(result.recorder.errors.at("HTTP 429"), 5u);
  EXPECT_EQ(result.recorder.error_samples.at("HTTP 429"), "queue full");
  EXPECT_EQ(result.recorder.errors.at("HTTP 500"), 5u);
  EXPECT_EQ(result.recorder.error_samples.at("HTTP 500"), "it broke");
  EXPECT_NE(ToCsv(result).find(",failed,HTTP 429,"), std::string::npos);
}

TEST(LoadHttp, CancelsAndDeadlinesCloseTheConnection) {
  const auto endless = [](const auto&, SteadyTime) {
    Script script = Tokens({0.0, 0.01, 0.02, 0.03});
    script.wait_for_cancel = true;
    return script;
  };
  ScriptedHttpServer server(endless);
  LoadOptions o = MakeLoadOptions({server.url()});
  o.runner.max_concurrency = 10;
  o.runner.max_requests = 20;
  o.workload.cancel_share = 1;
  o.workload.cancel_after = ParseDistribution("2");
  const RunResult cancelled = RunLoad(o);
  EXPECT_EQ(cancelled.recorder.cancelled, 20u);
  EXPECT_EQ(cancelled.recorder.failed, 0u);
  ASSERT_TRUE(Eventually([&] { return server.served().size() == 20u; }));
  for (const auto& [id, served] : server.served()) EXPECT_TRUE(served.cancelled) << id;

  ScriptedHttpServer slow(endless);
  LoadOptions d = MakeLoadOptions({slow.url()});
  d.runner.max_concurrency = 5;
  d.runner.max_requests = 5;
  d.workload.deadline_share = 1;
  d.workload.deadline = ParseDistribution("0.2");
  const RunResult late = RunLoad(d);
  EXPECT_EQ(late.recorder.deadline, 5u);
  EXPECT_EQ(late.recorder.failed, 0u);
  d.workload.deadline_share = 0;
  d.runner.timeout_s = 0.2;
  EXPECT_EQ(RunLoad(d).recorder.errors.at("DEADLINE_EXCEEDED"), 5u);
}

TEST(LoadHttp, StopInterrupts) {
  ScriptedHttpServer server([](const auto& request, SteadyTime) {
    Script script = Tokens({0.02});
    script.wait_for_cancel = SessionOf(request) >= 10;
    return script;
  });
  LoadOptions o = MakeLoadOptions({server.url()});
  o.runner.max_concurrency = 2;
  o.runner.duration_s = 60;
  auto workload = Workload::Create(o.workload).value();
  Runner runner(o.runner, workload.get(), [&] { return MakeTransport(o); });
  ASSERT_TRUE(runner.Connect().ok());
  std::thread stopper([&] {
    EXPECT_TRUE(Eventually([&] { return runner.Snapshot().completed >= 10; }));
    runner.Stop();
  });
  const RunResult result = runner.Run();
  stopper.join();
  EXPECT_TRUE(result.stopped);
  EXPECT_GE(result.recorder.completed, 10u);
  EXPECT_EQ(result.recorder.interrupted, 2u);
  EXPECT_EQ(result.recorder.failed, 0u);
}

TEST(LoadHttp, SessionsContinueTheirTextWithTheServersTokens) {
  ScriptedHttpServer server(ThreeTokens);
  LoadOptions o = MakeLoadOptions({server.url()});
  o.turns = "3";
  o.workload.turns = ParseDistribution("3");
  o.runner.max_concurrency = 2;
  o.runner.max_requests = 2;
  EXPECT_EQ(RunLoad(o).recorder.completed, 6u);
  std::map<std::string, nlohmann::json> prompts;
  for (const HttpSeen& seen : server.requests()) {
    prompts[seen.headers.at("x-request-id")] = seen.body["prompt"];
  }
  EXPECT_EQ(prompts.at("load-1-0").size(), 8u);
  ASSERT_EQ(prompts.at("load-1-1").size(), 19u);
  EXPECT_EQ(prompts.at("load-1-1")[8], 100);
  EXPECT_EQ(prompts.at("load-1-1")[10], 102);
  EXPECT_EQ(prompts.at("load-1-2").size(), 30u);
}

TEST(LoadHttp, SpreadsOverTargetsAndThreads) {
  ScriptedHttpServer a(ThreeTokens);
  ScriptedHttpServer b(ThreeTokens);
  LoadOptions o = MakeLoadOptions({a.url(), b.url()});
  o.runner.threads = 2;
  o.runner.max_concurrency = 8;
  o.runner.max_requests = 80;
  EXPECT_EQ(RunLoad(o).recorder.completed, 80u);
  EXPECT_EQ(a.requests().size(), 40u);
  EXPECT_EQ(b.requests().size(), 40u);
}

TEST(LoadHttp, ServerTimesAreReported) {
  ScriptedHttpServer server([](const auto&, SteadyTime) {
    Script script = Tokens({0.0, 0.01});
    script.queue_s = 0.125;
    return script;
  });
  LoadOptions o = MakeLoadOptions({server.url()});
  o.runner.max_concurrency = 1;
  o.runner.max_requests = 3;
  EXPECT_NEAR(ToJson(RunLoad(o), {})["p50_queue_ms"].get<double>(), 125, 0.1);
}

TEST(LoadHttp, AnUnreachableServerIsAnErrorNotAHang) {
  const LoadOptions o = MakeLoadOptions({"http://127.0.0.1:1"});
  auto workload = Workload::Create(o.workload).value();
  Runner runner(o.runner, workload.get(), [&] { return MakeTransport(o); });
  EXPECT_EQ(runner.Connect().code(), absl::StatusCode::kUnavailable);
}

// A connection that fails under way is a failed request, and the run goes on.
TEST(LoadHttp, AServerThatDiesFailsItsRequests) {
  ScriptedHttpServer server([](const auto&, SteadyTime) {
    Script script = Tokens({0.0, 0.01});
    script.wait_for_cancel = true;
    return script;
  });
  LoadOptions o = MakeLoadOptions({server.url()});
  o.runner.max_concurrency = 4;
  o.runner.max_requests = 8;
  std::thread stopper([&] {
    EXPECT_TRUE(Eventually([&] { return server.requests().size() == 4; }));
    server.Stop();
  });
  const RunResult result = RunLoad(o);
  stopper.join();
  EXPECT_EQ(result.recorder.completed, 0u);
  EXPECT_EQ(result.recorder.failed, 8u);
  EXPECT_GE(result.recorder.errors.at("UNAVAILABLE"), 4u);
}

class LoadHttps : public ::testing::Test {
 protected:
  // A certificate for localhost that is its own root.
  static void SetUpTestSuite() {
    directory_ = ::testing::TempDir() + "hgrn2_load_https";
    const std::string command =
        "mkdir -p " + directory_ + " && cd " + directory_ +
        " && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem 2> openssl.log";
    have_certificate_ = std::system(command.c_str()) == 0;
  }
  void SetUp() override {
    if (!have_certificate_) GTEST_SKIP() << "no openssl command: " << directory_ << "/openssl.log";
  }
  static HttpServerOptions ServerOptions() {
    return {.tls_cert = directory_ + "/cert.pem",
            .tls_key = directory_ + "/key.pem",
            .api_key = "secret"};
  }

  static inline std::string directory_;
  static inline bool have_certificate_ = false;
};

TEST_F(LoadHttps, CertificateAndKeyAreChecked) {
  ScriptedHttpServer a(ThreeTokens, ServerOptions());
  ScriptedHttpServer b(ThreeTokens, ServerOptions());
  LoadOptions o = MakeLoadOptions({a.url(), b.url()});
  o.connection.tls_ca = directory_ + "/cert.pem";
  o.connection.api_key = "secret";
  o.runner.max_concurrency = 4;
  o.runner.max_requests = 40;
  ASSERT_TRUE(AskModel(&o).ok());
  const RunResult good = RunLoad(o);
  EXPECT_EQ(good.recorder.completed, 40u);
  EXPECT_EQ(good.recorder.output_tokens, 120u);
  EXPECT_EQ(a.requests().size(), 20u);

  LoadOptions wrong_key = o;
  wrong_key.connection.api_key = "guess";
  EXPECT_EQ(RunLoad(wrong_key).recorder.errors.at("HTTP 401"), 40u);
  EXPECT_FALSE(HttpGet(a.url() + "/v1/models", wrong_key.connection).ok());

  LoadOptions untrusted = o;
  untrusted.connection.tls_ca.clear();
  auto workload = Workload::Create(untrusted.workload).value();
  Runner runner(untrusted.runner, workload.get(), [&] { return MakeTransport(untrusted); });
  const absl::Status status = runner.Connect();
  EXPECT_NE(std::string(status.message()).find("certificate verify failed"), std::string::npos)
      << status;
}

TEST_F(LoadHttps, TheCertificatesNameIsChecked) {
  ScriptedHttpServer server(ThreeTokens, ServerOptions());
  LoadOptions o = MakeLoadOptions({server.url()});
  o.connection.tls_ca = directory_ + "/cert.pem";
  o.connection.tls_server_name = "elsewhere.example";
  auto workload = Workload::Create(o.workload).value();
  Runner runner(o.runner, workload.get(), [&] { return MakeTransport(o); });
  EXPECT_EQ(runner.Connect().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace hgrn2::client
