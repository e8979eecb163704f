// A gateway over a frontend that the test drives, without sockets.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "server/openai/gateway.h"
#include "tests/openai/capturing_responder.h"
#include "tests/server/fake_frontend.h"
#include "tests/testing/temp_dir.h"

namespace hgrn2::testing {

class GatewayTest : public ::testing::Test {
 protected:
  using json = nlohmann::json;

  GatewayTest() { Start(); }
  ~GatewayTest() override {
    if (responder_ != nullptr) responder_->Release();
  }

  void Start(std::function<void(GatewayOptions*)> adjust = nullptr) {
    auto chat = ChatTemplates::Load(directory_.path());
    EXPECT_TRUE(chat.ok()) << chat.status();
    chat_ = *std::move(chat);
    GatewayOptions options;
    options.generation.frontend = &frontend_;
    options.generation.metrics = &metrics_;
    options.chat = chat_.get();
    if (adjust) adjust(&options);
    gateway_ = std::make_unique<Gateway>(std::move(options));
    router_ = HttpRouter();
    gateway_->AddRoutes(&router_);
  }

  HttpRequest Request(const std::string& method, const std::string& path,
                      const std::string& body = "") {
    HttpRequest request;
    request.method = method;
    request.path = path;
    request.headers = {{"content-type", "application/json"}};
    request.body = body;
    return request;
  }
  // The responder is responder_.
  void Dispatch(HttpRequest request) {
    if (responder_ != nullptr) responder_->Release();
    responder_ = std::make_shared<CapturingResponder>();
    router_.Dispatch(std::move(request), responder_);
  }
  // A generating request that was submitted.
  std::shared_ptr<FakeRequest> Post(const std::string& path, const json& body) {
    Dispatch(Request("POST", path, body.dump()));
    auto request = frontend_.Next();
    EXPECT_NE(request, nullptr) << responder_->sent().body;
    return request;
  }
  json SentJson() { return json::parse(responder_->sent().body); }

  TempDir directory_;
  FakeFrontend frontend_;
  Metrics metrics_{"fake"};
  std::unique_ptr<const ChatTemplates> chat_;
  std::unique_ptr<Gateway> gateway_;
  HttpRouter router_;
  std::shared_ptr<CapturingResponder> responder_;
};

// One generated token, with alternatives `top` (ids; the first is the most probable).
inline ChoiceDelta TokenDelta(int32_t index, int32_t id, std::string text, float logprob,
                              std::vector<TopToken> top = {}) {
  TokenInfo info;
  info.score.token_id = id;
  info.score.logprob = logprob;
  info.score.rank = 1;
  info.bytes = text;
  info.score.top = std::move(top);
  info.top_bytes.resize(info.score.top.size());
  ChoiceDelta delta;
  delta.index = index;
  delta.text = std::move(text);
  delta.token_ids = {id};
  delta.logprobs = {std::move(info)};
  return delta;
}

inline ChoiceDelta EndDelta(int32_t index, FinishReason reason, std::string stop = "") {
  ChoiceDelta delta;
  delta.index = index;
  delta.finish_reason = reason;
  delta.stop_reason = std::move(stop);
  return delta;
}

}  // namespace hgrn2::testing
