// Answers of /v1/chat/completions and /v1/responses, over a frontend without a model.
#include "tests/openai/gateway_fixture.h"

namespace hgrn2 {
namespace {

using testing::DataLines;
using testing::EndDelta;
using testing::GatewayTest;
using testing::TokenDelta;

const nlohmann::json kHello = {{{"role", "user"}, {"content", "Hello"}}};

TEST_F(GatewayTest, AConversationIsRendered) {
  auto request =
      Post("/v1/chat/completions",
           {{"messages",
             {{{"role", "developer"}, {"content", "Be kind."}},
              {{"role", "user"},
               {"content",
                {{{"type", "text"}, {"text", "Hello"}}, {{"type", "text"}, {"text", "you"}}}}},
              {{"role", "assistant"}, {"content", "Hi"}, {"refusal", nullptr}},
              {{"role", "user"}, {"content", "Bye"}}}}});
  EXPECT_EQ(std::get<std::string>(request->completion.prompts[0]),
            "Be kind.\n\nUser: Hello\nyou\nAssistant: Hi\nUser: Bye\nAssistant:");
  EXPECT_EQ(request->completion.sampling.stop, std::vector<std::string>{"\nUser:"});
  EXPECT_EQ(request->completion.sampling.max_tokens, 1024);
  request->Delta(" See you");
  request->handler->OnDelta(EndDelta(0, FinishReason::kStop, "\nUser:"));
  request->Finish();
  const json answer = SentJson();
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(answer["choices"][0]["message"]["content"], " See you");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(answer["choices"][0]["logprobs"].is_null());
}

TEST_F(GatewayTest, ChatLogprobs) {
  auto request =
      Post("/v1/chat/completions", {{"messages", kHello}, {"logprobs", true}, {"top_logprobs", 1}});
  EXPECT_EQ(request->completion.sampling.logprobs, 1);
  request->handler->OnDelta(TokenDelta(0, 7, "\xc3\xa9", -0.5, {{8, -0.25}}));
  request->handler->OnDelta(EndDelta(0, FinishReason::kLength));
  request->Finish();
  const json content = SentJson()["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 1u);
  EXPECT_EQ(content[0]["logprob"], -0.5);
  EXPECT_EQ(content[0]["bytes"], json({0xc3, 0xa9}));
  EXPECT_EQ(content[0]["top_logprobs"][0]["token"], "token_id:8");
}

TEST_F(GatewayTest, ChatChunksBeginWithTheRole) {
  auto request = Post("/v1/chat/completions", {{"messages", kHello}, {"stream", true}});
  request->Delta(" Hi");
  responder_->Drain();
  request->handler->OnDelta(EndDelta(0, FinishReason::kLength));
  responder_->Drain();
  request->Finish();
  const auto lines = DataLines(responder_->all());
  ASSERT_EQ(lines.size(), 4u);
  const auto choice = [&](int line) { return json::parse(lines[line])["choices"][0]; };
  EXPECT_EQ(json::parse(lines[0])["object"], "chat.completion.chunk");
  EXPECT_EQ(choice(0)["delta"], json({{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(choice(1)["delta"], json({{"content", " Hi"}}));
  EXPECT_TRUE(choice(1)["finish_reason"].is_null());
  EXPECT_EQ(choice(2)["delta"], json::object());
  EXPECT_EQ(choice(2)["finish_reason"], "length");
  EXPECT_EQ(lines[3], "[DONE]");
}

TEST_F(GatewayTest, WhatChatsCannotDoIsSaid) {
  const std::vector<std::pair<json, std::string>> cases = {
      {{{"messages", json::array()}}, "messages"},
      {json::object(), "messages"},
      {{{"messages", {{{"role", "user"}}}}}, "messages[0].content"},
      {{{"messages", {{{"content", "x"}}}}}, "messages[0].role"},
      {{{"messages", {{{"role", "tool"}, {"content", "x"}}}}}, "messages[0].role"},
      {{{"messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}}},
       "messages[0].content[0].type"},
      {{{"messages", {{{"role", "assistant"}, {"tool_calls", {1}}}}}}, "messages[0].tool_calls"},
      {{{"messages", kHello}, {"tools", {1}}}, "tools"},
      {{{"messages", kHello}, {"tool_choice", "required"}}, "tool_choice"},
      {{{"messages", kHello}, {"response_format", {{"type", "json_object"}}}}, "response_format"},
      {{{"messages", kHello}, {"modalities", {"audio"}}}, "modalities"},
      {{{"messages", kHello}, {"chat_template", "{{ 1 }}"}}, "chat_template"},
      {{{"messages", kHello}, {"top_logprobs", 3}}, "top_logprobs"},
      {{{"messages", kHello}, {"logprobs", 5}}, "logprobs"},
      {{{"messages", kHello}, {"max_tokens", 5}, {"max_completion_tokens", 5}}, "max_tokens"},
      {{{"messages", kHello}, {"continue_final_message", true}}, "continue_final_message"},
      {{{"messages", kHello}, {"suffix", "x"}}, "suffix"},
  };
  for (const auto& [body, param] : cases) {
    Dispatch(Request("POST", "/v1/chat/completions", body.dump()));
    EXPECT_EQ(responder_->sent().status, 400) << body;
    const json error = SentJson()["error"];
    EXPECT_EQ(error["param"], param) << error;
  }
}

TEST_F(GatewayTest, WithoutATemplateThereIsNoChat) {
  Start([](GatewayOptions* options) {
    options->chat = nullptr;
    options->chat_error = "line 3: no such filter";
  });
  Dispatch(Request("POST", "/v1/chat/completions", json({{"messages", kHello}}).dump()));
  EXPECT_EQ(responder_->sent().status, 400);
  EXPECT_NE(responder_->sent().body.find("line 3"), std::string::npos);
}

TEST_F(GatewayTest, ResponsesGoOnFromTheirPredecessors) {
  auto request =
      Post("/v1/responses",
           {{"input", "Hello"}, {"instructions", "Be kind."}, {"metadata", {{"a", "b"}}}});
  EXPECT_EQ(std::get<std::string>(request->completion.prompts[0]),
            "Be kind.\n\nUser: Hello\nAssistant:");
  request->Delta(" Hi");
  request->handler->OnDelta(EndDelta(0, FinishReason::kStop));
  request->Finish();
  const json first = SentJson();
  EXPECT_EQ(first["object"], "response");
  EXPECT_EQ(first["status"], "completed");
  EXPECT_EQ(first["output"][0]["content"][0]["text"], " Hi");
  EXPECT_EQ(first["metadata"]["a"], "b");
  EXPECT_EQ(first["usage"]["input_tokens"], 3);

  const json second_input = {
      {{"role", "user"}, {"content", {{{"type", "input_text"}, {"text", "Bye"}}}}}};
  request =
      Post("/v1/responses",
           {{"input", second_input}, {"previous_response_id", first["id"]}, {"store", false}});
  // Instructions are not inherited.
  EXPECT_EQ(std::get<std::string>(request->completion.prompts[0]),
            "User: Hello\nAssistant:  Hi\nUser: Bye\nAssistant:");
  request->Delta(" Bye");
  request->handler->OnDelta(EndDelta(0, FinishReason::kLength));
  request->Finish();
  const json second = SentJson();
  EXPECT_EQ(second["status"], "incomplete");
  EXPECT_EQ(second["incomplete_details"]["reason"], "max_output_tokens");

  const auto get = [&](const std::string& method, const json& id) {
    Dispatch(Request(method, "/v1/responses/" + id.get<std::string>()));
    return responder_->sent();
  };
  EXPECT_EQ(json::parse(get("GET", first["id"]).body), first);
  EXPECT_EQ(get("GET", second["id"]).status, 404) << "it was not to be stored";
  EXPECT_EQ(get("DELETE", first["id"]).status, 200);
  EXPECT_EQ(get("GET", first["id"]).status, 404);
  Dispatch(Request("POST", "/v1/responses",
                   json({{"input", "x"}, {"previous_response_id", first["id"]}}).dump()));
  EXPECT_EQ(responder_->sent().status, 400);
  EXPECT_EQ(SentJson()["error"]["param"], "previous_response_id");
}

TEST_F(GatewayTest, EventsOfAResponse) {
  auto request = Post("/v1/responses", {{"input", "Hello"}, {"stream", true}});
  request->Delta(" H");
  responder_->Drain();
  request->Delta("i");
  responder_->Drain();
  request->handler->OnDelta(EndDelta(0, FinishReason::kStop));
  responder_->Drain();
  request->Finish();
  std::vector<std::string> types;
  std::string text;
  const auto lines = DataLines(responder_->all());
  for (size_t i = 0; i < lines.size(); ++i) {
    const json event = json::parse(lines[i]);
    EXPECT_EQ(event["sequence_number"], i);
    types.push_back(event["type"]);
    if (types.back() == "response.output_text.delta") text += event["delta"];
    EXPECT_NE(responder_->all().find("event: " + types.back() + "\n"), std::string::npos);
  }
  EXPECT_EQ(text, " Hi");
  EXPECT_EQ(types,
            (std::vector<std::string>{"response.created", "response.in_progress",
                                      "response.output_item.added", "response.content_part.added",
                                      "response.output_text.delta", "response.output_text.delta",
                                      "response.output_text.done", "response.content_part.done",
                                      "response.output_item.done", "response.completed"}));
  const json last = json::parse(lines.back())["response"];
  EXPECT_EQ(last["output"][0]["content"][0]["text"], " Hi");
}

TEST(ResponseStoreTest, TheLeastRecentlyUsedGoFirst) {
  ResponseStore store(4000);
  const auto response = [] { return StoredResponse{Json::array(), std::string(1000, 'x')}; };
  store.Put("a", response());
  store.Put("b", response());
  EXPECT_NE(store.Get("a"), nullptr);
  store.Put("c", response());
  store.Put("d", response());
  EXPECT_EQ(store.Get("b"), nullptr);
  EXPECT_NE(store.Get("d"), nullptr);
  store.Put("huge", {Json::array(), std::string(5000, 'x')});
  EXPECT_EQ(store.Get("huge"), nullptr);
  EXPECT_NE(store.Get("d"), nullptr) << "a response that cannot be kept drives none out";
  EXPECT_TRUE(store.Delete("d"));
  EXPECT_FALSE(store.Delete("d"));
}

}  // namespace
}  // namespace hgrn2
