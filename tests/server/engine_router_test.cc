#include "server/engine_router.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/status.h"
#include "tests/server/fake_engine.h"

namespace hgrn2 {
namespace {

using testing::FakeEngine;

class NullSink : public TokenSink {
 public:
  void OnDone(const absl::Status& status, const Usage&, const Timing&) override {
    ++dones;
    last = status;
  }
  int dones = 0;
  absl::Status last;
};

class EngineRouterTest : public ::testing::Test {
 protected:
  explicit EngineRouterTest(int n = 3) {
    std::vector<std::unique_ptr<Engine>> engines;
    for (int i = 0; i < n; ++i) {
      auto engine = std::make_unique<FakeEngine>();
      engine->info.device = fmt::format("fake:{}", i);
      engine->info.num_slots = 10;
      engine->info.max_batched_tokens = 100 - i;
      fakes_.push_back(engine.get());
      engines.push_back(std::move(engine));
    }
    router_ = std::make_unique<EngineRouter>(std::move(engines));
  }
  absl::StatusOr<RequestHandle> Submit(int num_choices = 1) {
    EngineRequest request;
    request.num_choices = num_choices;
    request.sink = sink_;
    return router_->Submit(std::move(request));
  }

  std::vector<FakeEngine*> fakes_;
  std::unique_ptr<EngineRouter> router_;
  std::shared_ptr<NullSink> sink_ = std::make_shared<NullSink>();
};

TEST_F(EngineRouterTest, SpreadsByUnfinishedWork) {
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(Submit().ok());
  for (FakeEngine* fake : fakes_) EXPECT_EQ(fake->requests.size(), 2u);
  // The second engine finishes its work: the next two go there.
  fakes_[1]->FinishAll();
  EXPECT_EQ(sink_->dones, 2);
  ASSERT_TRUE(Submit().ok());
  ASSERT_TRUE(Submit().ok());
  EXPECT_EQ(fakes_[1]->requests.size(), 2u);
}

TEST_F(EngineRouterTest, ARequestOfManyChoicesWeighsMore) {
  ASSERT_TRUE(Submit(8).ok());
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(Submit().ok());
  EXPECT_EQ(fakes_[0]->requests.size(), 1u);
  EXPECT_EQ(fakes_[1]->requests.size(), 4u);
  EXPECT_EQ(fakes_[2]->requests.size(), 4u);
}

TEST_F(EngineRouterTest, HandlesFindTheirEngine) {
  std::vector<RequestHandle> handles;
  for (int i = 0; i < 6; ++i) handles.push_back(*Submit());
  for (const RequestHandle handle : handles) router_->Cancel(handle);
  for (FakeEngine* fake : fakes_) {
    EXPECT_EQ(fake->cancelled, (std::vector<RequestHandle>{1, 2}));
  }
  router_->StopChoice(handles[4], 7);
  EXPECT_EQ(fakes_[1]->stopped, (std::vector<std::pair<RequestHandle, int32_t>>{{2, 7}}));
}

TEST_F(EngineRouterTest, AFullQueueSendsTheRequestOn) {
  fakes_[0]->refuse = absl::ResourceExhaustedError("full");
  ASSERT_TRUE(Submit().ok());
  EXPECT_EQ(fakes_[1]->requests.size(), 1u);
  fakes_[1]->refuse = fakes_[2]->refuse = absl::ResourceExhaustedError("full");
  EXPECT_EQ(Submit().status().code(), absl::StatusCode::kResourceExhausted);
  // Refusals leave no load behind.
  for (FakeEngine* fake : fakes_) fake->refuse = absl::OkStatus();
  fakes_[1]->FinishAll();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Submit().ok());
  for (FakeEngine* fake : fakes_) EXPECT_EQ(fake->requests.size(), 1u);
}

TEST_F(EngineRouterTest, OtherRefusalsAreFinal) {
  fakes_[0]->refuse = absl::UnavailableError("draining");
  EXPECT_EQ(Submit().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(fakes_[1]->requests.empty());
}

TEST_F(EngineRouterTest, StatsAndInfoAddUp) {
  fakes_[0]->stats = {1, 2, 3, 10, 100, 0.5, false, false};
  fakes_[1]->stats = {10, 20, 30, 10, 1000, 2.5, true, false};
  fakes_[2]->stats = {0, 0, 0, 10, 0, 0.25, false, true};
  const EngineStats stats = router_->Stats();
  EXPECT_EQ(stats.num_running, 11);
  EXPECT_EQ(stats.num_waiting, 22);
  EXPECT_EQ(stats.slots_used, 33);
  EXPECT_EQ(stats.num_slots, 30);
  EXPECT_EQ(stats.num_steps, 1100u);
  EXPECT_EQ(stats.seconds_since_heartbeat, 2.5);
  EXPECT_TRUE(stats.draining);
  EXPECT_TRUE(stats.failed);
  EXPECT_EQ(router_->backend_info().device, "fake:0, fake:1, fake:2");
  EXPECT_EQ(router_->backend_info().num_slots, 30);
  EXPECT_EQ(router_->backend_info().max_batched_tokens, 98);
}

TEST_F(EngineRouterTest, DrainsAllAtOnce) {
  for (FakeEngine* fake : fakes_) fake->drain_time = std::chrono::milliseconds(200);
  const TimePoint start = Clock::Real().Now();
  EXPECT_TRUE(router_->Drain(std::chrono::seconds(1)));
  EXPECT_LT(Clock::Real().Now() - start, std::chrono::milliseconds(550));
  fakes_[2]->drain_time = std::chrono::seconds(5);
  EXPECT_FALSE(router_->Drain(std::chrono::milliseconds(10)));
}

TEST_F(EngineRouterTest, AFatalErrorOfAnyEngineIsReported) {
  absl::Status seen;
  router_->SetFatalErrorCallback([&](const absl::Status& status) { seen = status; });
  fakes_[2]->on_fatal(absl::InternalError("lost device"));
  EXPECT_EQ(seen.message(), "lost device");
}

}  // namespace
}  // namespace hgrn2
