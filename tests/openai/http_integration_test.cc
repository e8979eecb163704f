// The OpenAI-compatible API of the real server binary, over real sockets.
#include <google/protobuf/util/json_util.h>

#include <future>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/server/integration_fixture.h"

namespace hgrn2 {
namespace {

using namespace hgrn2::testing;  // NOLINT: the fixture's helpers
using nlohmann::json;

class HttpIntegrationTest : public IntegrationTest {
 protected:
  int port() const { return server_->http_port(); }
  HttpReply Post(const std::string& path, const json& body, const std::string& headers = "") {
    return HttpPost(port(), path, body.dump(), headers);
  }
  // A stream on `client` whose first event has come.
  void BeginStream(RawClient* client, const json& body) {
    const std::string text = body.dump();
    client->Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" +
                 fmt::format("Content-Length: {}\r\n\r\n", text.size()) + text);
    EXPECT_EQ(client->ReadHead().status, 200);
    EXPECT_NE(client->ReadChunk(), "");
  }
  static json Forever() {
    return {{"prompt", "Once"}, {"max_tokens", kForever}, {"ignore_eos", true}, {"stream", true}};
  }
};

struct Streamed {
  std::string text;
  std::vector<int> ids;
  json usage;
  bool done = false;
};

Streamed ParseStream(const std::string& events) {
  Streamed out;
  for (size_t at = 0; (at = events.find("data: ", at)) != std::string::npos;) {
    const size_t end = events.find('\n', at);
    const std::string line = events.substr(at + 6, end - at - 6);
    at = end;
    if (line == "[DONE]") {
      out.done = true;
      break;
    }
    const json chunk = json::parse(line);
    if (chunk.contains("usage") && !chunk["usage"].is_null()) out.usage = chunk["usage"];
    for (const json& choice : chunk["choices"]) {
      out.text += choice["text"];
      for (const json& id : choice.value("token_ids", json::array())) out.ids.push_back(id);
    }
  }
  return out;
}

TEST_F(HttpIntegrationTest, SameTokensAsOverGrpc) {
  Start();
  const std::vector<json> cases = {
      {{"temperature", 0}},
      {{"temperature", 0.9}, {"top_p", 0.8}, {"seed", 7}},
      {{"temperature", 1.2}, {"top_k", 20}, {"min_p", 0.02}, {"seed", 8}},
      {{"repetition_penalty", 1.3},
       {"presence_penalty", 0.5},
       {"frequency_penalty", 0.25},
       {"seed", 9}},
      {{"logit_bias", {{"11", -100}, {"400", 5}}}, {"bad_words", {"the"}}, {"seed", 10}},
      {{"stop", {"."}}, {"include_stop_str_in_output", true}, {"min_tokens", 5}, {"seed", 11}},
      {{"n", 3}, {"seed", 12}},
  };
  for (const json& sampling : cases) {
    json proto = sampling;
    proto["max_tokens"] = 24;
    v1::GenerateRequest request;
    const std::string text =
        json({{"prompts", {{{"text", "The old sailor"}}}}, {"sampling", proto}}).dump();
    ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(text, &request).ok()) << text;
    grpc::ClientContext context;
    v1::CompleteResponse expected;
    ASSERT_TRUE(stub_->Complete(&context, request, &expected).ok());

    json body = proto;
    body["prompt"] = "The old sailor";
    body["return_token_ids"] = true;
    const json answer = json::parse(Post("/v1/completions", body).body);
    ASSERT_EQ(answer["choices"].size(), static_cast<size_t>(expected.choices_size())) << answer;
    for (int i = 0; i < expected.choices_size(); ++i) {
      const auto& ids = expected.choices(i).token_ids();
      EXPECT_EQ(answer["choices"][i]["token_ids"], json(std::vector<int>(ids.begin(), ids.end())));
      EXPECT_EQ(answer["choices"][i]["text"], expected.choices(i).text());
    }
    EXPECT_EQ(answer["usage"]["completion_tokens"], expected.usage().completion_tokens());
    EXPECT_EQ(answer["usage"]["prompt_tokens"], expected.usage().prompt_tokens());
    if (expected.choices_size() > 1) continue;
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
    const Streamed streamed = ParseStream(Post("/v1/completions", body).body);
    EXPECT_TRUE(streamed.done);
    EXPECT_EQ(streamed.text, expected.choices(0).text());
    EXPECT_EQ(json(streamed.ids), answer["choices"][0]["token_ids"]);
    EXPECT_EQ(streamed.usage, answer["usage"]);
  }
}

// lm-evaluation-harness' local-completions: log-likelihoods of continuations are the sums over
// token_logprobs[context:-1], and "is greedy" compares them with the maxima of top_logprobs.
TEST_F(HttpIntegrationTest, HarnessScoringEqualsScore) {
  Start();
  const auto tokenize = [&](const std::string& text) {
    const json answer =
        json::parse(Post("/tokenize", {{"prompt", text}, {"add_special_tokens", false}}).body);
    return answer["tokens"].get<std::vector<int>>();
  };
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"Call me", " Ishmael. Some years ago"},
      {"The cat sat on", " the mat"},
      {"It was the best of", " times"},
      {"a", "b c d e f g"},
      {"He opened the door and", " qzx"}};
  json prompts = json::array();
  std::vector<std::vector<int>> contexts, continuations;
  for (const auto& [context, continuation] : pairs) {
    contexts.push_back(tokenize(context));
    continuations.push_back(tokenize(continuation));
    std::vector<int> both = contexts.back();
    both.insert(both.end(), continuations.back().begin(), continuations.back().end());
    prompts.push_back(both);
  }
  const json answer = json::parse(Post("/v1/completions", {{"model", "hgrn2-gutenberg-12m"},
                                                           {"prompt", prompts},
                                                           {"temperature", 0},
                                                           {"max_tokens", 1},
                                                           {"logprobs", 1},
                                                           {"seed", 1234},
                                                           {"echo", true}})
                                      .body);
  ASSERT_EQ(answer["choices"].size(), pairs.size()) << answer;
  for (size_t i = 0; i < pairs.size(); ++i) {
    v1::ScoreRequest request;
    for (const int id : contexts[i]) request.mutable_context()->mutable_tokens()->add_ids(id);
    auto* const continuation = request.add_continuations();
    for (const int id : continuations[i]) continuation->mutable_tokens()->add_ids(id);
    grpc::ClientContext context;
    v1::ScoreResponse expected;
    ASSERT_TRUE(stub_->Score(&context, request, &expected).ok());

    const json logprobs = answer["choices"][i]["logprobs"];
    const size_t begin = contexts[i].size();
    const size_t end = logprobs["token_logprobs"].size() - 1;
    ASSERT_EQ(end - begin, continuations[i].size());
    double sum = 0;
    bool greedy = true;
    for (size_t t = begin; t < end; ++t) {
      const double logprob = logprobs["token_logprobs"][t];
      double best = -1e30;
      for (const auto& [token, value] : logprobs["top_logprobs"][t].items()) {
        best = std::max(best, value.get<double>());
      }
      greedy = greedy && logprob == best;
      sum += logprob;
    }
    EXPECT_NEAR(sum, expected.scores(0).sum_logprob(), 1e-4) << pairs[i].second;
    EXPECT_EQ(greedy, expected.scores(0).is_greedy()) << pairs[i].second;
    EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  }
}

TEST_F(HttpIntegrationTest, ADroppedConnectionFreesItsSlot) {
  Start({"--max-num-seqs", "4"});
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    BeginStream(clients.back().get(), Forever());
  }
  // One that waits for a whole answer.
  clients.push_back(std::make_unique<RawClient>(port()));
  json whole = Forever();
  whole["stream"] = false;
  clients.back()->Send(
      fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
                  "\r\nContent-Length: {}\r\n\r\n",
                  json({{"messages", {{{"role", "user"}, {"content", "x"}}}},
                        {"max_tokens", kForever},
                        {"ignore_eos", true}})
                      .dump()
                      .size()) +
      json({{"messages", {{{"role", "user"}, {"content", "x"}}}},
            {"max_tokens", kForever},
            {"ignore_eos", true}})
          .dump());
  ASSERT_TRUE(Eventually([&] { return SlotsUsed() == 4; }));
  clients.clear();
  EXPECT_TRUE(Eventually([&] { return SlotsUsed() == 0; }, seconds(5)));
  EXPECT_EQ(Metric("hgrn2_requests_cancelled_total", "phase=\"decode\""), 4);
  EXPECT_TRUE(Eventually([&] {
    return Metric("hgrn2_http_requests_total", "path=\"/v1/chat/completions\",status=\"499\"") == 1;
  }));
  EXPECT_TRUE(Eventually([&] { return Metric("hgrn2_http_connections") == 1; }));
  const double steps = Metric("hgrn2_batch_size_count");
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(Metric("hgrn2_batch_size_count"), steps);
}

TEST_F(HttpIntegrationTest, ManyStreamsOnFewConnectionsAndKeepAlive) {
  Start({"--max-num-seqs", "16"});
  const json body = {{"prompt", "The whale"}, {"max_tokens", 8}, {"seed", 1}, {"ignore_eos", true}};
  const std::string alone = json::parse(Post("/v1/completions", body).body)["choices"][0]["text"];
  json streaming = body;
  streaming["stream"] = true;
  const std::string text = streaming.dump();
  const std::string request =
      fmt::format(
          "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
          "Content-Length: {}\r\n\r\n",
          text.size()) +
      text;
  std::vector<std::future<int>> workers;
  for (int w = 0; w < 8; ++w) {
    workers.push_back(std::async(std::launch::async, [&] {
      RawClient client(port());
      int good = 0;
      client.Send(request + request + request);  // pipelined
      for (int i = 0; i < 6; ++i) {
        if (i >= 3) client.Send(request);
        const HttpReply reply = client.Read();
        const Streamed streamed = ParseStream(reply.body);
        good += reply.status == 200 && streamed.done && streamed.text == alone;
      }
      return good;
    }));
  }
  for (auto& worker : workers) EXPECT_EQ(worker.get(), 6);
  EXPECT_EQ(Metric("hgrn2_http_requests_total", "path=\"/v1/completions\",status=\"200\""), 49);
}

TEST_F(HttpIntegrationTest, OldClientsGetStreamsTooAndHeadHasNoBody) {
  Start();
  const std::string body =
      json({{"prompt", "The whale"}, {"max_tokens", 4}, {"stream", true}}).dump();
  RawClient old(port());
  old.Send(fmt::format("POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
                       "Content-Length: {}\r\n\r\n",
                       body.size()) +
           body);
  const HttpReply reply = old.Read();
  EXPECT_EQ(reply.status, 200);
  EXPECT_FALSE(reply.headers.contains("transfer-encoding"));
  EXPECT_TRUE(ParseStream(reply.body).done);
  RawClient head(port());
  head.Send("HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(head.Read(/*has_body=*/false).status, 200);
  EXPECT_NE(head.Read().body.find("version"), std::string::npos);
}

TEST_F(HttpIntegrationTest, ASlowReaderIsCancelled) {
  Start({"--stream-buffer-bytes", "4096", "--max-num-seqs", "2"});
  RawClient slow(port());
  slow.SetReceiveBuffer(4096);
  json verbose = Forever();
  verbose["logprobs"] = 20;
  BeginStream(&slow, verbose);
  ASSERT_TRUE(Eventually([&] { return Metric("hgrn2_slow_reader_cancellations_total") == 1; },
                         seconds(240)));
  EXPECT_TRUE(Eventually([&] { return SlotsUsed() == 0; }));
  slow.SetReceiveBuffer(1 << 20);  // megabytes through 4 KiB can take minutes
  std::string events;
  for (std::string chunk; !(chunk = slow.ReadChunk()).empty();) events += chunk;
  EXPECT_TRUE(slow.whole());
  EXPECT_NE(events.find("too slowly"), std::string::npos);
}

TEST_F(HttpIntegrationTest, QueueFullAndDeadline) {
  Start({"--max-num-seqs", "1", "--max-num-queued-reqs", "1"});
  RawClient running(port()), waiting(port());
  BeginStream(&running, Forever());
  const json late = {{"prompt", "x"}, {"max_tokens", 1}, {"timeout", 0.2}};
  EXPECT_EQ(Post("/v1/completions", late).status, 504);
  const std::string text = json({{"prompt", "x"}, {"max_tokens", 1}}).dump();
  waiting.Send(fmt::format("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                           text.size()) +
               text);
  ASSERT_TRUE(Eventually([&] { return Metric("vllm:num_requests_waiting") == 1; }));
  const HttpReply refused = Post("/v1/completions", {{"prompt", "x"}});
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
}

TEST_F(HttpIntegrationTest, ADrainFinishesStreamsAndRefusesNewOnes) {
  Start({"--max-num-seqs", "2"});
  RawClient running(port()), idle(port());
  json body = Forever();
  body["max_tokens"] = 1500;
  BeginStream(&running, body);
  idle.Send("GET /version HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(idle.Read().status, 200);
  server_->Signal(SIGTERM);
  ASSERT_TRUE(Eventually([&] { return HttpGet(port(), "/ready").status == 503; }));
  const std::string text = json({{"prompt", "x"}}).dump();
  idle.Send(fmt::format("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                        text.size()) +
            text);
  const HttpReply refused = idle.Read();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_EQ(refused.headers.at("connection"), "close");
  std::string events;
  for (std::string chunk; !(chunk = running.ReadChunk()).empty();) events += chunk;
  EXPECT_TRUE(running.whole()) << "the stream was cut off";
  EXPECT_TRUE(events.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(HttpIntegrationTest, KeysOriginsAndIds) {
  Start({"--http-api-key", "secret-1, secret-2", "--cors-allow-origin", "https://app.example"});
  const json body = {{"prompt", "x"}, {"max_tokens", 1}};
  const auto status = [&](const std::string& header) {
    return Post("/v1/completions", body, header).status;
  };
  EXPECT_EQ(status(""), 401);
  EXPECT_EQ(status("Authorization: Bearer wrong\r\n"), 401);
  EXPECT_EQ(status("Authorization: Bearer secret-\r\n"), 401);
  EXPECT_EQ(status("Authorization: Bearer secret-11\r\n"), 401);
  EXPECT_EQ(status("Authorization: Basic secret-1\r\n"), 401);
  EXPECT_EQ(status("Authorization: Bearer secret-1\r\n"), 200);
  EXPECT_EQ(status("authorization: bearer secret-2\r\n"), 200);
  EXPECT_EQ(HttpGet(port(), "/v1/models").status, 401);
  for (const char* open : {"/health", "/ready", "/metrics", "/version", "/openapi.json"}) {
    EXPECT_EQ(HttpGet(port(), open).status, 200) << open;
  }
  EXPECT_EQ(server_->log().find("secret-"), std::string::npos);

  const std::string key = "Authorization: Bearer secret-1\r\n";
  HttpReply reply = Post("/v1/completions", body, key + "x-request-id: mine\r\n");
  EXPECT_EQ(reply.headers.at("x-request-id"), "mine");
  EXPECT_FALSE(reply.headers.contains("access-control-allow-origin"));
  reply = Post("/v1/completions", body, key + "Origin: https://app.example\r\n");
  EXPECT_EQ(reply.headers.at("access-control-allow-origin"), "https://app.example");
  reply = Post("/v1/completions", body, key + "Origin: https://evil.example\r\n");
  EXPECT_FALSE(reply.headers.contains("access-control-allow-origin"));
  RawClient preflight(port());
  preflight.Send(
      "OPTIONS /v1/completions HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\n"
      "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: "
      "authorization\r\n\r\n");
  reply = preflight.Read();
  EXPECT_EQ(reply.status, 204);
  EXPECT_EQ(reply.headers.at("access-control-allow-headers"), "authorization");
  EXPECT_NE(reply.headers.at("access-control-allow-methods").find("POST"), std::string::npos);
}

TEST_F(HttpIntegrationTest, EveryDescribedPathAnswers) {
  Start();
  const json document = json::parse(HttpGet(port(), "/openapi.json").body);
  for (const auto& [path, operations] : document["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      std::string verb = method;
      for (char& c : verb) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      RawClient client(port());
      client.Send(verb + " " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
      const HttpReply reply = client.Read();
      EXPECT_NE(reply.status, 405) << verb << " " << path;
      if (path.find('{') == std::string::npos) {
        EXPECT_EQ(reply.status, verb == "POST" ? 400 : 200) << verb << " " << path;
      }
    }
  }
  EXPECT_EQ(HttpGet(port(), "/v1/models/hgrn2-gutenberg-12m").status, 200);
  EXPECT_EQ(Post("/v1/completions", {{"prompt", "x"}, {"model", "gpt-5"}}).status, 404);
}

TEST_F(HttpIntegrationTest, ChatAndResponsesAnswer) {
  Start();
  const json messages = {{{"role", "user"}, {"content", "Who are you?"}}};
  const json chat = json::parse(
      Post("/v1/chat/completions", {{"messages", messages}, {"max_tokens", 6}, {"seed", 1}}).body);
  EXPECT_EQ(chat["choices"][0]["message"]["role"], "assistant") << chat;
  EXPECT_LE(chat["usage"]["completion_tokens"], 6);
  const json first = json::parse(
      Post("/v1/responses", {{"input", "Who are you?"}, {"max_output_tokens", 6}, {"seed", 1}})
          .body);
  // One path behind both.
  EXPECT_EQ(first["output"][0]["content"][0]["text"], chat["choices"][0]["message"]["content"]);
  const json second = json::parse(
      Post("/v1/responses",
           {{"input", "And you?"}, {"max_output_tokens", 4}, {"previous_response_id", first["id"]}})
          .body);
  EXPECT_GT(second["usage"]["input_tokens"], first["usage"]["input_tokens"]);
}

}  // namespace
}  // namespace hgrn2
