// The API's description is true: every route and field in it exists and is taken, and there is no
// other.
#include "server/openai/openapi.h"

#include <set>

#include "server/ops_routes.h"
#include "tests/openai/gateway_fixture.h"
#include "tests/server/fake_engine.h"

namespace hgrn2 {
namespace {

using testing::GatewayTest;

class OpenApiTest : public GatewayTest {
 protected:
  OpenApiTest() {
    AddOpsRoutes({&engine_, &metrics_, &ready_, 10}, &router_);
    document_ = json::parse(OpenApiDocument());
  }
  testing::FakeEngine engine_;
  std::atomic<bool> ready_{true};
  json document_;
};

TEST_F(OpenApiTest, RoutesAreTheServers) {
  std::set<std::string> described, routed;
  for (const auto& [path, operations] : document_["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      std::string upper = method;
      for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      described.insert(upper + " " + path);
      EXPECT_FALSE(operation["responses"].empty());
    }
  }
  for (const auto& [method, path] : router_.Routes()) routed.insert(method + " " + path);
  EXPECT_EQ(described, routed);
}

// Smallest bodies that are taken, per path.
nlohmann::json MinimalBody(const std::string& path) {
  if (path == "/v1/completions") return {{"prompt", "a"}};
  if (path == "/v1/chat/completions") {
    return {{"messages", {{{"role", "user"}, {"content", "a"}}}}};
  }
  if (path == "/v1/responses") return {{"input", "a"}};
  if (path == "/tokenize") return {{"prompt", "a"}};
  return {{"tokens", {1}}};
}

TEST_F(OpenApiTest, EveryFieldIsTakenAndNoOther) {
  const auto param = [&](const std::string& path, const json& body) -> json {
    Dispatch(Request("POST", path, body.dump()));
    const HttpResponse sent = responder_->pieces().empty() && responder_->finished()
                                  ? responder_->sent()
                                  : HttpResponse{};
    if (sent.status != 400) return nullptr;
    return json::parse(sent.body)["error"]["param"];
  };
  int fields = 0;
  for (const auto& [path, operations] : document_["paths"].items()) {
    if (!operations.contains("post")) continue;
    const json schema = operations["post"]["requestBody"]["content"]["application/json"]["schema"];
    EXPECT_TRUE(param(path, MinimalBody(path)).is_null()) << path;
    for (const auto& [name, property] : schema["properties"].items()) {
      ++fields;
      json body = MinimalBody(path);
      if (property.contains("examples")) body[name] = property["examples"][0];
      // What these need beside them.
      if (name == "top_logprobs" && path == "/v1/chat/completions") body["logprobs"] = true;
      if (name == "messages" && path == "/tokenize") body.erase("prompt");
      if (name == "best_of") body["n"] = 1;
      const json refused = param(path, body);
      EXPECT_TRUE(refused.is_null()) << path << " refuses " << refused << " of " << body;
    }
    json body = MinimalBody(path);
    body["no_such_field"] = 1;
    EXPECT_EQ(param(path, body), "no_such_field") << path;
    for (const json& name : schema.value("required", json::array())) {
      json without = MinimalBody(path);
      without.erase(name.get<std::string>());
      EXPECT_EQ(param(path, without), name) << path;
    }
  }
  EXPECT_GT(fields, 100);
}

TEST(RequestBodyTest, HostileJsonIsRefused) {
  for (const std::string& text : {
           std::string(),
           std::string("null"),
           std::string("[]"),
           std::string("{"),
           std::string("{\"a\":1,}"),
           std::string("{\"a\":NaN}"),
           std::string("{\"a\":Infinity}"),
           std::string("{\"a\":1e999}"),
           std::string("{\"a\":-1e999}"),
           std::string("{\"a\":01}"),
           std::string("{\"a\":1,\"a\":2}"),
           std::string("{\"a\":{\"b\":1,\"b\":1}}"),
           std::string("{\"a\":\"\xff\"}"),
           std::string("{\"a\":\"\xed\xa0\x80\"}"),
           std::string("{\"\xc0\xaf\":1}"),
           std::string("{\"a\":\"\\ud800\"}"),
           std::string("{\"a\":\"\n\"}"),
           std::string("{\"a\":1}x"),
           std::string("{\"a\":1}\0", 8),
           "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}",
       }) {
    EXPECT_EQ(ParseRequestBody(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text.substr(0, 40);
  }
  EXPECT_TRUE(ParseRequestBody("{\"a\":" + std::string(60, '[') + std::string(60, ']') + "}").ok());
  // Quadratic work on these would take minutes.
  std::string keys = "{";
  for (int i = 0; i < 300000; ++i) keys += "\"k" + std::to_string(i) + "\":0,";
  keys += "\"z\":0}";
  auto many = ParseRequestBody(keys);
  ASSERT_TRUE(many.ok());
  EXPECT_EQ(many->size(), 300001u);
}

}  // namespace
}  // namespace hgrn2
