#include "client/load/openai_answer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "client/http_url.h"
#include "client/load/json_scanner.h"

namespace hgrn2::client {
namespace {

OpenAiMessage Parse(const std::string& json) {
  OpenAiMessage message;
  EXPECT_TRUE(ParseOpenAiMessage(json, &message)) << json;
  return message;
}

TEST(OpenAiMessage, ReadsWhatServersSend) {
  OpenAiMessage m = Parse(
      R"({"id":"cmpl-1","object":"text_completion","created":1.7e9,"model":"m","choices":[)"
      R"({"index":0,"text":" a\"}]b\\","logprobs":{"tokens":["x"],"top_logprobs":[{"a":-1.5}]},)"
      R"("finish_reason":null,"stop_reason":null,"token_ids":[5, 6]}],)"
      R"("usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2,)"
      R"("prompt_tokens_details":{"cached_tokens":1}}})");
  EXPECT_TRUE(m.has_choice && m.has_text);
  EXPECT_FALSE(m.finished);
  EXPECT_EQ(m.token_ids, (std::vector<int32_t>{5, 6}));
  EXPECT_EQ(m.prompt_tokens, 3);
  EXPECT_EQ(m.completion_tokens, 2);
  EXPECT_EQ(m.cached_tokens, 1);

  m = Parse(R"({"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]})");
  EXPECT_TRUE(m.has_choice);
  EXPECT_FALSE(m.has_text);
  m = Parse(R"({"choices":[{"delta":{"content":"hi"}}],"usage":null})");
  EXPECT_TRUE(m.has_text);
  EXPECT_EQ(m.completion_tokens, -1);
  m = Parse(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})");
  EXPECT_TRUE(m.finished);
  EXPECT_FALSE(m.aborted);
  EXPECT_TRUE(Parse(R"({"choices":[{"text":"","finish_reason":"abort"}]})").aborted);
  m = Parse(R"({"error":{"message":"a \"b\" é","type":"x","param":null,"code":503}})");
  EXPECT_TRUE(m.is_error);
  EXPECT_EQ(m.error, "a \"b\" \xc3\xa9");
  EXPECT_EQ(m.error_code, 503);
  EXPECT_EQ(Parse(R"({"error":"plain","choices":[]})").error, "plain");
  EXPECT_FALSE(Parse(R"({"error":null,"choices":[]})").is_error);
}

TEST(OpenAiMessage, RefusesWhatIsNotJson) {
  const std::string whole =
      R"({"choices":[{"text":"a\\\"","token_ids":[1,2],"x":[{"y":{}}]}],"usage":{"prompt_tokens":1}})";
  OpenAiMessage message;
  EXPECT_TRUE(ParseOpenAiMessage(whole, &message));
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_FALSE(ParseOpenAiMessage(whole.substr(0, i), &message)) << whole.substr(0, i);
  }
  for (const char* bad :
       {"", "[]", "1", "\"x\"", "{\"choices\":{}}", "{\"choices\":[1]}", "{} x",
        "{\"usage\":{\"prompt_tokens\":\"3\"}}", "{\"usage\":{\"prompt_tokens\":-3}}",
        "{\"usage\":{\"prompt_tokens\":99999999999}}", "{\"choices\":[{\"token_ids\":[1.5]}]}"}) {
    EXPECT_FALSE(ParseOpenAiMessage(bad, &message)) << bad;
  }
  EXPECT_FALSE(ParseOpenAiMessage("{\"x\":" + std::string(100'000, '[') + "}", &message));
}

// A server without running usage or token ids: pieces of text count as tokens until the usage at
// the end says how many they were.
TEST(OpenAiAnswer, TheUsageAtTheEndPutsTheCountRight) {
  OpenAiAnswer answer;
  for (const char* text : {"a", "b", ""}) {
    const OpenAiMessage m = Parse(std::string(R"({"choices":[{"text":")") + text + R"("}]})");
    EXPECT_EQ(answer.Add(m).tokens, *text != 0);
  }
  EXPECT_FALSE(answer.finished());
  EXPECT_EQ(answer.Add(Parse(R"({"choices":[{"text":"","finish_reason":"stop"}]})")).tokens, 0);
  EXPECT_TRUE(answer.finished());
  const AnswerPart last = answer.Add(Parse(R"({"choices":[],"usage":{"completion_tokens":5}})"));
  EXPECT_EQ(last.tokens, 0);
  EXPECT_EQ(last.total_tokens, 5);
}

TEST(OpenAiAnswer, RunningUsageTellsTokensWithoutText) {
  OpenAiAnswer answer;
  const auto add = [&](const std::string& text, int so_far) {
    return answer
        .Add(Parse(R"({"choices":[{"text":")" + text + R"("}],"usage":{"completion_tokens":)" +
                   std::to_string(so_far) + "}}"))
        .tokens;
  };
  EXPECT_EQ(add("a", 1), 1);
  EXPECT_EQ(add("", 2), 1);  // part of a character, held back
  EXPECT_EQ(add("bcd", 5), 3);
  EXPECT_EQ(add("", 5), 0);
}

TEST(JsonScanner, UnescapesLikeAParser) {
  for (const std::string text : {"plain", "\"\\/\b\n\t", "\xc3\xa9\xf0\x9f\x98\x80"}) {
    const std::string quoted = nlohmann::json(text).dump(-1, ' ', /*ensure_ascii=*/true);
    EXPECT_EQ(JsonUnescape(std::string_view(quoted).substr(1, quoted.size() - 2)), text);
  }
}

TEST(HttpUrl, PartsAndDefaults) {
  const HttpUrl plain = ParseHttpUrl("http://localhost/v1").value();
  EXPECT_EQ(plain.host + "|" + plain.port + "|" + plain.path, "localhost|80|/v1");
  EXPECT_EQ(plain.host_header(), "localhost");
  const HttpUrl tls = ParseHttpUrl("https://[::1]:8443").value();
  EXPECT_TRUE(tls.tls);
  EXPECT_EQ(tls.host + "|" + tls.port + "|" + tls.path, "::1|8443|");
  EXPECT_EQ(tls.host_header(), "[::1]:8443");
  for (const char* bad :
       {"", "localhost:1", "ftp://x", "http://", "http://:80", "http://x:", "http://x:y",
        "http://x:99999", "http://[::1", "http://x y", "http://x\r\nA: b"}) {
    EXPECT_FALSE(ParseHttpUrl(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace hgrn2::client
