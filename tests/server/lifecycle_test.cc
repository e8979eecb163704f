// Starting and stopping the real server binary.
#include "tests/server/integration_fixture.h"

namespace hgrn2 {
namespace {

using namespace hgrn2::testing;  // NOLINT: the fixture's helpers

using LifecycleTest = IntegrationTest;

TEST_F(LifecycleTest, SigtermLetsStreamsFinishAndRefusesNewWork) {
  Start({"--shutdown-timeout", "120", "--max-num-seqs", "4"});
  auto running = Begin(Prompt("Once upon a time", 1500));
  server_->Signal(SIGTERM);
  ASSERT_TRUE(Eventually([&] { return HttpGet(server_->http_port(), "/ready").status == 503; }));
  EXPECT_EQ(HttpGet(server_->http_port(), "/health").status, 200);
  // On the connection that is open, as a client's pool would.
  EXPECT_EQ(Health(""), HealthResponse::NOT_SERVING);
  EXPECT_EQ(Health("hgrn2.v1.Inference"), HealthResponse::NOT_SERVING);
  const Outcome refused = Generate(Prompt("New", 1));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(HasRetryInfo(refused.status)) << refused.status.error_message();
  EXPECT_EQ(Metric("hgrn2_requests_rejected_total", "reason=\"draining\""), 1);
  const Outcome finished = running->Finish();
  EXPECT_TRUE(finished.status.ok()) << finished.status.error_message();
  EXPECT_EQ(finished.usage.completion_tokens(), 1500);
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(LifecycleTest, SigtermEndsWhatDoesNotFinish) {
  Start({"--shutdown-timeout", "0.3"});
  auto running = Begin(Prompt("Once upon a time", kForever));
  server_->Signal(SIGTERM);
  const Outcome outcome = running->Finish();
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(HasRetryInfo(outcome.status));
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(LifecycleTest, SigintOnAnIdleServer) {
  Start();
  server_->Signal(SIGINT);
  EXPECT_EQ(server_->WaitForExit(seconds(20)), 0);
}

TEST_F(LifecycleTest, ASecondSignalEndsAtOnce) {
  Start({"--shutdown-timeout", "600"});
  auto running = Begin(Prompt("Once upon a time", kForever));
  server_->Signal(SIGTERM);
  ASSERT_TRUE(Eventually([&] { return HttpGet(server_->http_port(), "/ready").status == 503; }));
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->WaitForExit(seconds(20)), 128 + SIGTERM);
}

TEST_F(LifecycleTest, LogsAsJsonAndSettingsFromTheEnvironment) {
  server_ = std::make_unique<ServerProcess>(
      ServerProcess::WithModel({"--max-num-seqs", "3"}),
      std::vector<std::string>{"HGRN2_LOG_FORMAT=json", "HGRN2_MAX_NUM_SEQS=9"});
  ASSERT_TRUE(Eventually([&] {
    return server_->log().find("HTTP listening on") != std::string::npos;
  })) << server_->log();
  EXPECT_NE(server_->log().find("x 3 slots"), std::string::npos) << "a flag wins";
  EXPECT_TRUE(server_->log().starts_with("{\"time\":"));
}

// The log may arrive a moment after the exit.
bool Contains(const ServerProcess& server, const std::string& text) {
  for (int i = 0; i < 500 && server.log().find(text) == std::string::npos; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  return server.log().find(text) != std::string::npos;
}

// The request's trace and id are fields of its line, whichever way it came.
TEST_F(LifecycleTest, TraceContextsReachTheLog) {
  Start({"--log-format", "json"});
  constexpr const char kTrace[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  for (const char* header : {kTrace, "00-not-a-trace"}) {
    grpc::ClientContext context;
    context.AddMetadata("traceparent", header);
    v1::GenerateRequest request = Prompt("Once", 2);
    request.set_request_id(header == kTrace ? "traced" : "untraced");
    Outcome outcome;
    ReadToEnd(*stub_->Generate(&context, request), &outcome);
    EXPECT_TRUE(outcome.status.ok());
  }
  const std::string body = R"({"prompt": "Once", "max_tokens": 2})";
  RawClient http(server_->http_port());
  http.Send(
      fmt::format("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                  "Content-Type: application/json\r\nX-Request-Id: by-http\r\n"
                  "Traceparent: {}\r\nContent-Length: {}\r\n\r\n{}",
                  kTrace, body.size(), body));
  EXPECT_EQ(http.Read().status, 200);
  const auto line = [&](const std::string& id) {
    const std::string key = "\"request_id\":\"" + id + "\"";
    EXPECT_TRUE(Contains(*server_, key)) << server_->log();
    const std::string log = server_->log();
    const size_t at = log.find(key);
    const size_t begin = log.rfind('\n', at) + 1;
    return log.substr(begin, log.find('\n', at) - begin);
  };
  constexpr const char kFields[] =
      R"("trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","parent_id":"00f067aa0ba902b7","sampled":1)";
  EXPECT_NE(line("traced").find(kFields), std::string::npos) << line("traced");
  EXPECT_NE(line("by-http").find(kFields), std::string::npos) << line("by-http");
  EXPECT_EQ(line("untraced").find("trace_id"), std::string::npos) << line("untraced");
}

// One sentence and status 1, whatever is wrong.
TEST(StartUpTest, MistakesEndWithOneSentence) {
  const auto fails = [](std::vector<std::string> flags, const std::string& expected) {
    ServerProcess server(std::move(flags));
    EXPECT_EQ(server.WaitForExit(), 1) << expected;
    EXPECT_TRUE(Contains(server, "hgrn2-server: ")) << server.log();
    EXPECT_TRUE(Contains(server, expected)) << server.log();
  };
  fails({}, "--model");
  fails({"--model", "/nonexistent"}, "/nonexistent");
  fails(ServerProcess::WithModel({"--no-such-flag", "1"}), "--no-such-flag");
  fails(ServerProcess::WithModel({"--max-num-seqs", "0"}), "max-num-seqs: must be");
  fails(ServerProcess::WithModel({"--host", "203.0.113.1"}), "203.0.113.1");
  fails(ServerProcess::WithModel({"--state-dtype", "fp8"}), "state");
  ServerProcess first(ServerProcess::WithModel({}));
  ASSERT_TRUE(first.WaitUntilListening());
  fails(ServerProcess::WithModel({"--grpc-port", std::to_string(first.grpc_port())}),
        std::to_string(first.grpc_port()));
  fails(ServerProcess::WithModel({"--http-port", std::to_string(first.http_port())}),
        std::to_string(first.http_port()));
}

TEST(StartUpTest, HelpAndVersion) {
  ServerProcess help({"--help"});
  EXPECT_EQ(help.WaitForExit(), 0);
  EXPECT_TRUE(Contains(help, "--max-num-seqs"));
  ServerProcess version({"--version"});
  EXPECT_EQ(version.WaitForExit(), 0);
  EXPECT_TRUE(Contains(version, "hgrn2-server 0."));
}

TEST(StartUpTest, ASignalWhileTheModelLoadsEndsAtOnce) {
  ServerProcess server(ServerProcess::WithModel({}));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.WaitForExit(), 128 + SIGTERM);
}

}  // namespace
}  // namespace hgrn2
