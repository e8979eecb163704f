#include "server/ops_routes.h"

#include <gtest/gtest.h>

#include <optional>

#include "server/version.h"
#include "tests/server/fake_engine.h"

namespace hgrn2 {
namespace {

class CapturingResponder : public HttpResponder {
 public:
  void Listen(std::shared_ptr<HttpStreamListener>) override {}
  void Send(HttpResponse response) override { sent = std::move(response); }
  void Begin(HttpResponse) override {}
  void Write(std::string) override {}
  void Finish() override {}
  std::optional<HttpResponse> sent;
};

class OpsRoutesTest : public ::testing::Test {
 protected:
  OpsRoutesTest() { AddOpsRoutes({&engine_, &metrics_, &ready_, 10}, &router_); }
  HttpResponse Get(const std::string& path) {
    auto responder = std::make_shared<CapturingResponder>();
    router_.Dispatch({"GET", path, "", {}, ""}, responder);
    EXPECT_TRUE(responder->sent.has_value());
    return responder->sent.value_or(HttpResponse{});
  }

  testing::FakeEngine engine_;
  Metrics metrics_{"m"};
  std::atomic<bool> ready_{true};
  HttpRouter router_;
};

TEST_F(OpsRoutesTest, HealthIsTheEnginesHeartbeat) {
  EXPECT_EQ(Get("/health").status, 200);
  ready_ = false;  // draining is not ill
  engine_.stats.draining = true;
  EXPECT_EQ(Get("/health").status, 200);
  engine_.stats.seconds_since_heartbeat = 11;
  EXPECT_EQ(Get("/health").status, 503);
  engine_.stats = {};
  engine_.stats.failed = true;
  EXPECT_EQ(Get("/health").status, 503);
}

TEST_F(OpsRoutesTest, ReadyFallsOnDrainAndFailure) {
  EXPECT_EQ(Get("/ready").status, 200);
  ready_ = false;
  EXPECT_EQ(Get("/ready").status, 503);
  ready_ = true;
  engine_.stats.draining = true;
  EXPECT_EQ(Get("/ready").status, 503);
  engine_.stats = {};
  engine_.stats.failed = true;
  EXPECT_EQ(Get("/ready").status, 503);
}

TEST_F(OpsRoutesTest, VersionAndMetrics) {
  EXPECT_EQ(Get("/version").body, std::string("{\"version\":\"") + ServerVersion() + "\"}\n");
  const HttpResponse metrics = Get("/metrics");
  EXPECT_TRUE(metrics.content_type.starts_with("text/plain; version=0.0.4"));
  EXPECT_NE(metrics.body.find("vllm:prompt_tokens_total"), std::string::npos);
  EXPECT_EQ(Get("/nothing").status, 404);
}

}  // namespace
}  // namespace hgrn2
