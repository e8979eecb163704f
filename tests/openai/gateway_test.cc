// Answers of /v1/completions and what all endpoints share, over a frontend without a model.
#include "server/openai/gateway.h"

#include "base/status.h"
#include "tests/openai/gateway_fixture.h"

namespace hgrn2 {
namespace {

using testing::DataLines;
using testing::EndDelta;
using testing::GatewayTest;
using testing::TokenDelta;

TEST_F(GatewayTest, AWholeCompletion) {
  auto request = Post("/v1/completions", {{"prompt", {"a", "b"}},
                                          {"n", 2},
                                          {"max_tokens", 7},
                                          {"stop", "!"},
                                          {"stop_token_ids", {9}},
                                          {"logit_bias", {{"5", -1.5}}},
                                          {"user", "u"}});
  EXPECT_EQ(request->completion.prompts.size(), 2u);
  EXPECT_EQ(request->completion.sampling.n, 2);
  EXPECT_EQ(request->completion.sampling.max_tokens, 7);
  EXPECT_EQ(request->completion.sampling.logit_bias,
            (std::vector<std::pair<int32_t, float>>{{5, -1.5f}}));
  for (int i = 0; i < 4; ++i) {
    request->Delta("x", i);
    request->Delta("\"\n" + std::to_string(i), i);
  }
  request->handler->OnDelta(EndDelta(0, FinishReason::kLength));
  request->handler->OnDelta(EndDelta(1, FinishReason::kStop, "!"));
  request->handler->OnDelta(EndDelta(2, FinishReason::kStop, "9"));
  request->handler->OnDelta(EndDelta(3, FinishReason::kStop));
  request->Finish();
  const json answer = SentJson();
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["model"], "fake");
  ASSERT_EQ(answer["choices"].size(), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["text"], "x\"\n" + std::to_string(i));
  }
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(answer["choices"][0]["stop_reason"].is_null());
  EXPECT_EQ(answer["choices"][1]["stop_reason"], "!");
  EXPECT_EQ(answer["choices"][2]["stop_reason"], 9);  // a token, not a text
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 4);
  EXPECT_EQ(answer["usage"]["total_tokens"], 7);
}

TEST_F(GatewayTest, EventsAreMergedWhileTheSocketIsBusy) {
  auto request = Post("/v1/completions", {{"prompt", "a"}, {"stream", true}, {"n", 2}});
  request->Delta("one ", 0);
  request->Delta("two ", 0);
  request->Delta("other", 1);
  request->Delta("three", 0);
  ASSERT_EQ(responder_->pieces().size(), 1u) << "the socket has not taken the first yet";
  responder_->Drain();
  ASSERT_EQ(responder_->pieces().size(), 2u);
  const auto merged = DataLines(responder_->pieces()[1]);
  ASSERT_EQ(merged.size(), 2u);
  EXPECT_EQ(json::parse(merged[0])["choices"][0]["text"], "two three");
  EXPECT_EQ(json::parse(merged[1])["choices"][0]["text"], "other");
  EXPECT_EQ(json::parse(merged[1])["choices"][0]["index"], 1);
  request->Finish();
  EXPECT_FALSE(responder_->finished());
  responder_->Drain();
  EXPECT_TRUE(responder_->finished());
  EXPECT_TRUE(responder_->all().ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(responder_->sent().content_type.starts_with("text/event-stream"));
}

TEST_F(GatewayTest, UsageInStreams) {
  auto request = Post(
      "/v1/completions",
      {{"prompt", {1, 2, 3}}, {"stream", true}, {"stream_options", {{"include_usage", true}}}});
  request->Delta("x");
  request->Finish();
  responder_->Drain();
  auto lines = DataLines(responder_->all());
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_TRUE(json::parse(lines[0])["usage"].is_null());
  EXPECT_TRUE(json::parse(lines[1])["choices"].empty());
  EXPECT_EQ(json::parse(lines[1])["usage"]["completion_tokens"], 4);

  request = Post("/v1/completions", {{"prompt", {1, 2, 3}},
                                     {"stream", true},
                                     {"return_token_ids", true},
                                     {"stream_options", {{"continuous_usage_stats", true}}}});
  request->handler->OnDelta(TokenDelta(0, 7, "x", -1));
  responder_->Drain();
  request->handler->OnDelta(TokenDelta(0, 8, "y", -1));
  const json second = json::parse(DataLines(responder_->all())[1]);
  EXPECT_EQ(second["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(second["usage"]["completion_tokens"], 2);
  EXPECT_EQ(second["choices"][0]["token_ids"], json({8}));
  request->Finish();
}

TEST_F(GatewayTest, AClientThatLeavesCancels) {
  for (const bool stream : {false, true}) {
    auto request = Post("/v1/completions", {{"prompt", "a"}, {"stream", stream}});
    request->Delta("x");
    responder_->Leave();
    EXPECT_TRUE(request->WaitCancelled());
    request->Delta("y");
    request->Finish(absl::CancelledError("cancelled"));
  }
}

TEST_F(GatewayTest, AClientThatLeavesDuringSubmissionCancels) {
  frontend_.on_generate = [this](testing::FakeRequest&) { responder_->Leave(); };
  auto request = Post("/v1/completions", {{"prompt", "a"}, {"stream", true}});
  EXPECT_TRUE(request->WaitCancelled());
  request->Finish(absl::CancelledError("cancelled"));
}

TEST_F(GatewayTest, ASlowReaderIsCancelledAndTold) {
  Start([](GatewayOptions* options) { options->generation.stream_buffer_bytes = 100; });
  auto request = Post("/v1/completions", {{"prompt", "a"}, {"stream", true}});
  request->Delta(std::string(1000, 'x'));  // one delta is always taken
  for (int i = 0; i < 3; ++i) request->Delta(std::string(60, 'x'));
  EXPECT_TRUE(request->WaitCancelled());
  request->Finish(absl::CancelledError("cancelled"));
  responder_->Drain();
  const auto lines = DataLines(responder_->all());
  const json error = json::parse(lines[lines.size() - 2])["error"];
  EXPECT_NE(error["message"].get<std::string>().find("too slowly"), std::string::npos);
  EXPECT_TRUE(responder_->finished());
}

TEST_F(GatewayTest, AnAnswerBeyondTheLimitIsRefused) {
  Start([](GatewayOptions* options) { options->generation.max_response_bytes = 1000; });
  auto request = Post("/v1/completions", {{"prompt", "a"}});
  for (int i = 0; i < 20; ++i) request->Delta(std::string(100, 'x'));
  EXPECT_TRUE(request->WaitCancelled());
  request->Finish(absl::CancelledError("cancelled"));
  EXPECT_EQ(responder_->sent().status, 400);
  EXPECT_NE(responder_->sent().body.find("http-max-response-bytes"), std::string::npos);
}

TEST_F(GatewayTest, ErrorsHaveTheRightCode) {
  const std::vector<std::tuple<absl::Status, int, std::string>> cases = {
      {InvalidArgument("prompts[1]", "bad"), 400, "prompt[1]"},
      {InvalidArgument("top_p", "bad"), 400, "top_p"},
      {absl::NotFoundError("no such model"), 404, ""},
      {absl::ResourceExhaustedError("queue full"), 429, ""},
      {absl::UnavailableError("draining"), 503, ""},
      {absl::DeadlineExceededError("late"), 504, ""},
      {absl::InternalError("oh"), 500, ""},
  };
  for (const auto& [status, code, param] : cases) {
    frontend_.refuse = status;
    Dispatch(Request("POST", "/v1/completions", R"({"prompt":"a"})"));
    const HttpResponse sent = responder_->sent();
    EXPECT_EQ(sent.status, code);
    const json error = SentJson()["error"];
    EXPECT_EQ(error["param"], param.empty() ? json() : json(param));
    EXPECT_EQ(error["message"], std::string(status.message()));
    const bool retry =
        std::any_of(sent.headers.begin(), sent.headers.end(),
                    [](const auto& header) { return header.first == "Retry-After"; });
    EXPECT_EQ(retry, code == 429 || code == 503);
  }
}

TEST_F(GatewayTest, AnErrorBeforeTheFirstTokenHasItsCodeAndLaterOnesAnEvent) {
  auto request = Post("/v1/completions", {{"prompt", "a"}, {"stream", true}});
  request->Finish(absl::UnavailableError("draining"));
  EXPECT_EQ(responder_->sent().status, 503);
  request = Post("/v1/completions", {{"prompt", "a"}, {"stream", true}});
  request->Delta("x");
  request->Finish(absl::UnavailableError("draining"));
  responder_->Drain();
  EXPECT_EQ(responder_->sent().status, 200);
  const auto lines = DataLines(responder_->all());
  EXPECT_EQ(json::parse(lines[1])["error"]["message"], "draining");
}

TEST_F(GatewayTest, LogprobsInTheLegacyShape) {
  auto request =
      Post("/v1/completions", {{"prompt", {1, 2}}, {"echo", true}, {"logprobs", 1}, {"n", 2}});
  EXPECT_TRUE(request->completion.echo);
  EXPECT_EQ(request->completion.sampling.logprobs, 1);
  for (int choice = 0; choice < 2; ++choice) {
    ChoiceDelta echo;  // as the frontend sends it: the log-probabilities with the first choice only
    echo.index = choice;
    echo.text = "ab";
    echo.token_ids = {1, 2};
    if (choice == 0) {
      echo.prompt_logprobs = {TokenDelta(0, 1, "a", 0).logprobs[0],
                              TokenDelta(0, 2, "b", -3.25, {{8, -0.5}}).logprobs[0]};
      echo.prompt_logprobs[0].has_logprob = false;
    }
    request->handler->OnDelta(echo);
    request->handler->OnDelta(TokenDelta(choice, 7, "\xe2\x82", -0.25, {{7, -0.25}}));
    request->handler->OnDelta(
        TokenDelta(choice, 6, "c", -std::numeric_limits<float>::infinity(), {{7, -0.1}}));
    request->handler->OnDelta(EndDelta(choice, FinishReason::kLength));
  }
  request->Finish();
  const json answer = SentJson();
  for (int choice = 0; choice < 2; ++choice) {
    const json logprobs = answer["choices"][choice]["logprobs"];
    EXPECT_EQ(logprobs["tokens"], json({"token_id:1", "token_id:2", "token_id:7", "token_id:6"}));
    EXPECT_EQ(logprobs["token_logprobs"], json::parse("[null,-3.25,-0.25,-9999]"));
    EXPECT_EQ(logprobs["top_logprobs"], json::parse(R"([null,{"token_id:8":-0.5,"token_id:2":-3.25},
                  {"token_id:7":-0.25},{"token_id:7":-0.1,"token_id:6":-9999}])"));
    EXPECT_EQ(logprobs["text_offset"], json({0, 1, 2, 3}));
  }
}

TEST_F(GatewayTest, PromptLogprobsInVllmsShape) {
  auto request = Post("/v1/completions", {{"prompt", {1, 2}}, {"prompt_logprobs", 1}});
  ChoiceDelta first;
  first.prompt_logprobs = {TokenDelta(0, 1, "a", 0).logprobs[0],
                           TokenDelta(0, 2, "b", -3.25, {{8, -0.5}}).logprobs[0]};
  first.prompt_logprobs[0].has_logprob = false;
  request->handler->OnDelta(first);
  request->handler->OnDelta(EndDelta(0, FinishReason::kLength));
  request->Finish();
  EXPECT_EQ(SentJson()["choices"][0]["prompt_logprobs"], json::parse(R"([null,
      {"2":{"logprob":-3.25,"rank":1,"decoded_token":"token_id:2"},
       "8":{"logprob":-0.5,"rank":1,"decoded_token":"token_id:8"}}])"));
}

TEST_F(GatewayTest, BestOfShowsTheMostProbable) {
  auto request = Post("/v1/completions", {{"prompt", "a"}, {"best_of", 3}, {"n", 2}});
  EXPECT_EQ(request->completion.sampling.n, 3);
  EXPECT_EQ(request->completion.sampling.logprobs, 0);
  const float logprobs[] = {-3, -1, -2};
  for (int i = 0; i < 3; ++i) {
    request->handler->OnDelta(TokenDelta(i, i, std::to_string(i), logprobs[i]));
    request->handler->OnDelta(EndDelta(i, FinishReason::kLength));
  }
  request->Finish();
  const json choices = SentJson()["choices"];
  ASSERT_EQ(choices.size(), 2u);
  EXPECT_EQ(choices[0]["text"], "1");
  EXPECT_EQ(choices[0]["index"], 0);
  EXPECT_EQ(choices[1]["text"], "2");
  EXPECT_TRUE(choices[0]["logprobs"].is_null());
}

TEST_F(GatewayTest, NoTokensWithEcho) {
  auto request = Post("/v1/completions",
                      {{"prompt", "a"}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 0}});
  EXPECT_EQ(request->completion.sampling.max_tokens, 1);
  ChoiceDelta echo;
  echo.text = "a";
  echo.token_ids = {1};
  echo.prompt_logprobs = {TokenDelta(0, 1, "a", 0).logprobs[0]};
  request->handler->OnDelta(echo);
  request->handler->OnDelta(TokenDelta(0, 2, "b", -1));
  request->handler->OnDelta(EndDelta(0, FinishReason::kLength));
  request->Finish();
  const json answer = SentJson();
  EXPECT_EQ(answer["choices"][0]["text"], "a");
  EXPECT_EQ(answer["choices"][0]["logprobs"]["tokens"].size(), 1u);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 0);
}

TEST_F(GatewayTest, TimeoutsBecomeDeadlines) {
  const auto seconds_left = [&](HttpRequest request) {
    Dispatch(std::move(request));
    auto fake = frontend_.Next();
    fake->Finish();
    if (fake->completion.deadline == kInfiniteFuture) return -1.0;
    return ToSeconds(fake->completion.deadline - Clock::Real().Now());
  };
  HttpRequest plain = Request("POST", "/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(seconds_left(plain), -1);
  HttpRequest header = plain;
  header.headers["x-request-timeout"] = "20.5";
  EXPECT_NEAR(seconds_left(header), 20.5, 5);
  HttpRequest envoy = plain;
  envoy.headers["x-envoy-expected-rq-timeout-ms"] = "30000";
  EXPECT_NEAR(seconds_left(envoy), 30, 5);
  header.body = R"({"prompt":"a","timeout":40})";
  EXPECT_NEAR(seconds_left(header), 40, 5);
  header.headers["x-request-timeout"] = "soon";
  header.body = plain.body;
  Dispatch(header);
  EXPECT_EQ(responder_->sent().status, 400);
  EXPECT_EQ(SentJson()["error"]["param"], "x-request-timeout");
}

TEST_F(GatewayTest, RequestIds) {
  HttpRequest request = Request("POST", "/v1/completions", R"({"prompt":"a"})");
  request.headers["x-request-id"] = "mine-1";
  Dispatch(request);
  auto fake = frontend_.Next();
  EXPECT_EQ(fake->completion.request_id, "mine-1");
  fake->Delta("x");
  fake->Finish();
  EXPECT_EQ(SentJson()["id"], "cmpl-mine-1");
}

TEST_F(GatewayTest, LargeBodiesAreReadElsewhere) {
  const std::string text(200'000, 'x');
  Dispatch(Request("POST", "/v1/completions", json({{"prompt", text}}).dump()));
  auto request = frontend_.Next();
  ASSERT_NE(request, nullptr);
  EXPECT_EQ(std::get<std::string>(request->completion.prompts[0]).size(), text.size());
  request->Finish();
  Dispatch(Request("POST", "/v1/completions", "{\"prompt\":\"" + text));
  EXPECT_EQ(responder_->sent().status, 400);
}

TEST_F(GatewayTest, MediaTypes) {
  const auto status = [&](const std::string& header, const std::string& value) {
    HttpRequest request = Request("POST", "/detokenize", R"({"tokens":[1]})");
    request.headers[header] = value;
    Dispatch(request);
    return responder_->sent().status;
  };
  EXPECT_EQ(status("content-type", "application/json; charset=utf-8"), 200);
  EXPECT_EQ(status("content-type", "text/plain"), 415);
  EXPECT_EQ(status("content-type", "application/x-www-form-urlencoded"), 415);
  EXPECT_EQ(status("content-encoding", "gzip"), 415);
}

}  // namespace
}  // namespace hgrn2
