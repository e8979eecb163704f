#include "engine/engine.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "base/mutex.h"
#include "tests/engine/fake_backend.h"

namespace hgrn2 {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeBackend;
using testing::FakeNextToken;

// Records everything a request was told. Thread-safe.
class RecordingSink : public TokenSink {
 public:
  void OnPromptScores(std::vector<TokenScore> scores) override {
    MutexLock lock(&mu_);
    EXPECT_TRUE(choices_.empty()) << "prompt scores come first";
    prompt_scores_ = std::move(scores);
    ++num_prompt_scores_;
  }
  void OnToken(int32_t choice, TokenScore token) override {
    MutexLock lock(&mu_);
    EXPECT_FALSE(finished_.contains(choice));
    choices_[choice].push_back(token.token_id);
    ++num_tokens_;
  }
  void OnChoiceDone(int32_t choice, FinishReason reason, int32_t stop_token) override {
    MutexLock lock(&mu_);
    EXPECT_TRUE(finished_.emplace(choice, std::pair(reason, stop_token)).second);
  }
  void OnContinuationScores(int32_t index, std::vector<TokenScore> scores) override {
    MutexLock lock(&mu_);
    EXPECT_TRUE(continuations_.emplace(index, std::move(scores)).second);
  }
  void OnDone(const absl::Status& status, const Usage& usage, const Timing&) override {
    MutexLock lock(&mu_);
    EXPECT_FALSE(done_) << "OnDone twice";
    done_ = true;
    status_ = status;
    usage_ = usage;
    cv_.NotifyAll();
  }

  void Wait() {
    MutexLock lock(&mu_);
    while (!done_) cv_.Wait(&mu_);
  }
  bool done() const { return Locked(done_); }
  absl::Status status() const { return Locked(status_); }
  Usage usage() const { return Locked(usage_); }
  int64_t num_tokens() const { return Locked(num_tokens_); }
  int32_t num_prompt_scores() const { return Locked(num_prompt_scores_); }
  std::map<int32_t, std::vector<int32_t>> choices() const { return Locked(choices_); }
  std::map<int32_t, std::pair<FinishReason, int32_t>> finished() const { return Locked(finished_); }
  std::vector<TokenScore> prompt_scores() const { return Locked(prompt_scores_); }
  std::map<int32_t, std::vector<TokenScore>> continuations() const {
    return Locked(continuations_);
  }

 private:
  template <typename T>
  T Locked(const T& field) const {
    MutexLock lock(&mu_);
    return field;
  }
  mutable Mutex mu_;
  CondVar cv_;
  bool done_ = false;
  absl::Status status_;
  Usage usage_;
  int64_t num_tokens_ = 0;
  int32_t num_prompt_scores_ = 0;
  std::map<int32_t, std::vector<int32_t>> choices_;
  std::map<int32_t, std::pair<FinishReason, int32_t>> finished_;
  std::vector<TokenScore> prompt_scores_;
  std::map<int32_t, std::vector<TokenScore>> continuations_;
};

struct Harness {
  explicit Harness(FakeBackend::Options backend_options = {}, EngineOptions options = {}) {
    backend_options.clock = &clock;
    auto owned = std::make_unique<FakeBackend>(backend_options);
    backend = owned.get();
    options.clock = &clock;
    options.manual_stepping = true;
    engine = Engine::Create(std::move(owned), options);
  }
  ~Harness() {
    for (const std::string& violation : backend->violations) ADD_FAILURE() << violation;
  }
  std::pair<RequestHandle, std::shared_ptr<RecordingSink>> Submit(EngineRequest request) {
    auto sink = std::make_shared<RecordingSink>();
    request.sink = sink;
    const auto handle = engine->Submit(std::move(request));
    EXPECT_TRUE(handle.ok()) << handle.status();
    return {handle.ok() ? *handle : 0, sink};
  }
  void RunUntilIdle(int limit = 100000) {
    for (int i = 0; i < limit; ++i) {
      if (!engine->StepOnce()) return;
    }
    FAIL() << "still busy after " << limit << " turns";
  }

  FakeClock clock;
  FakeBackend* backend;
  std::unique_ptr<Engine> engine;
};

EngineRequest Request(std::vector<int32_t> prompt, int32_t max_tokens = 5) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.seed = 7;
  return request;
}

// What the fake model must generate for choice `choice`, whatever the engine does around it.
std::vector<int32_t> Expected(const EngineRequest& request, int32_t choice) {
  std::vector<int32_t> tokens = request.prompt, out;
  const uint64_t seed = ChoiceSeed(request.sampling.seed, choice);
  for (int32_t i = 0; i < request.max_tokens; ++i) {
    const int32_t token = FakeNextToken(tokens, seed, i);
    tokens.push_back(token);
    out.push_back(token);
    if (std::count(request.stop_token_ids.begin(), request.stop_token_ids.end(), token)) break;
  }
  return out;
}

TEST(EngineTest, GeneratesToTheLengthLimit) {
  for (const int depth : {1, 2}) {
    Harness harness({.pipeline_depth = depth});
    const EngineRequest request = Request({1, 2, 3}, 6);
    auto [handle, sink] = harness.Submit(request);
    harness.RunUntilIdle();
    EXPECT_EQ(sink->choices()[0], Expected(request, 0));
    EXPECT_EQ(sink->finished()[0], std::pair(FinishReason::kLength, -1));
    EXPECT_TRUE(sink->status().ok());
    EXPECT_EQ(sink->usage().prompt_tokens, 3);
    EXPECT_EQ(sink->usage().completion_tokens, 6);
    EXPECT_EQ(harness.engine->Stats().slots_used, 0);
    EXPECT_EQ(harness.backend->num_steps, 6) << "no step beyond the length limit";
  }
}

TEST(EngineTest, StopTokenEndsAChoiceAndIsReported) {
  for (const int depth : {1, 2}) {
    Harness harness({.pipeline_depth = depth});
    EngineRequest request = Request({4, 5}, 50);
    request.stop_token_ids = {Expected(request, 0)[3], 999};
    auto [handle, sink] = harness.Submit(request);
    harness.RunUntilIdle();
    EXPECT_EQ(sink->choices()[0], Expected(request, 0));
    EXPECT_EQ(sink->choices()[0].size(), 4u);
    EXPECT_EQ(sink->finished()[0].first, FinishReason::kStop);
    EXPECT_EQ(sink->finished()[0].second, request.stop_token_ids[0]);
  }
}

TEST(EngineTest, MinTokensBansStopTokens) {
  Harness harness;
  EngineRequest request = Request({4, 5}, 10);
  request.stop_token_ids = {Expected(request, 0)[1]};
  request.min_tokens = 4;
  auto [handle, sink] = harness.Submit(request);
  harness.RunUntilIdle();
  EXPECT_GE(sink->choices()[0].size(), 4u);
}

TEST(EngineTest, SeveralChoicesPrefillThePromptOnce) {
  Harness harness({.num_slots = 2});
  EngineRequest request = Request({1, 2, 3, 4, 5, 6, 7, 8}, 4);
  request.num_choices = 5;
  request.prompt_logprobs = 0;
  auto [handle, sink] = harness.Submit(request);
  harness.RunUntilIdle();
  for (int32_t choice = 0; choice < 5; ++choice) {
    EXPECT_EQ(sink->choices()[choice], Expected(request, choice)) << choice;
  }
  EXPECT_NE(sink->choices()[0], sink->choices()[1]);
  // One goes on in the prompt's slot, one in the other; three wait.
  EXPECT_EQ(harness.backend->num_copies, 1);
  EXPECT_EQ(harness.backend->num_saves, 1);
  EXPECT_EQ(harness.backend->num_restores, 3);
  EXPECT_EQ(sink->prompt_scores().size(), 7u);
  EXPECT_EQ(sink->num_prompt_scores(), 1);
}

TEST(EngineTest, SeveralChoicesOfAOneTokenPrompt) {
  Harness harness;
  EngineRequest request = Request({9}, 3);
  request.num_choices = 3;
  auto [handle, sink] = harness.Submit(request);
  harness.RunUntilIdle();
  for (int32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(sink->choices()[choice], Expected(request, choice));
  }
}

// Choices of a prompt, among other requests, as if each had been asked for alone; no copy in host
// memory, and so no wait for the steps in flight.
TEST(EngineTest, ForksAreCopiedBetweenSlots) {
  for (const int depth : {1, 2}) {
    Harness harness({.num_slots = 8, .pipeline_depth = depth});
    auto [before, before_sink] = harness.Submit(Request({1}, 30));
    EngineRequest request = Request({1, 2, 3, 4, 5, 6, 7, 8}, 6);
    request.num_choices = 4;
    request.min_tokens = 2;
    auto [handle, sink] = harness.Submit(request);
    EngineRequest scored;
    scored.prompt = {4, 5, 6};
    scored.continuations = {{1}, {2, 3}, {4}};
    auto [scored_handle, scored_sink] = harness.Submit(scored);
    harness.RunUntilIdle();
    EXPECT_EQ(before_sink->choices()[0], Expected(Request({1}, 30), 0));
    for (int32_t choice = 0; choice < 4; ++choice) {
      EngineRequest alone = request;
      alone.num_choices = 1;
      alone.sampling.seed = ChoiceSeed(request.sampling.seed, choice);
      Harness other;
      auto [alone_handle, alone_sink] = other.Submit(alone);
      other.RunUntilIdle();
      EXPECT_EQ(sink->choices()[choice], alone_sink->choices()[0]) << choice;
    }
    EXPECT_EQ(scored_sink->continuations().size(), 3u);
    EXPECT_EQ(harness.backend->num_copies, 3 + 2);
    EXPECT_EQ(harness.backend->num_saves, 0);
    EXPECT_EQ(harness.backend->num_restores, 0);
    EXPECT_EQ(harness.engine->Stats().slots_used, 0);
  }
}

TEST(EngineTest, ABranchThatIsPreemptedBeforeItsFirstStepKeepsItsState) {
  for (const int depth : {1, 2}) {
    Harness harness({.num_slots = 2, .pipeline_depth = depth});
    EngineRequest low = Request({1, 2, 3}, 9);
    low.priority = 50;
    low.num_choices = 2;
    auto [handle, low_sink] = harness.Submit(low);
    while (harness.backend->num_copies == 0) ASSERT_TRUE(harness.engine->StepOnce());
    EXPECT_EQ(low_sink->num_tokens(), 0);
    std::vector<std::shared_ptr<RecordingSink>> urgent;
    for (int i = 0; i < 2; ++i) urgent.push_back(harness.Submit(Request({4 + i}, 3)).second);
    harness.engine->StepOnce();
    EXPECT_EQ(harness.backend->num_saves, 2);
    harness.RunUntilIdle();
    EXPECT_EQ(harness.backend->num_restores, 2);
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(urgent[i]->choices()[0], Expected(Request({4 + i}, 3), 0));
      EXPECT_EQ(low_sink->choices()[i], Expected(low, i));
    }
  }
}

TEST(EngineTest, CancelAtAForkFreesEverySlot) {
  for (const int depth : {1, 2}) {
    Harness harness({.num_slots = 4, .pipeline_depth = depth});
    EngineRequest request = Request({1, 2, 3}, 9);
    request.num_choices = 6;
    auto [handle, sink] = harness.Submit(request);
    while (harness.backend->num_copies == 0) ASSERT_TRUE(harness.engine->StepOnce());
    EXPECT_EQ(harness.engine->Stats().slots_used, 4);
    harness.engine->Cancel(handle);
    harness.engine->StepOnce();
    EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(harness.engine->Stats().slots_used, 0);
    EXPECT_EQ(harness.engine->Stats().num_waiting, 0);
    auto [next, next_sink] = harness.Submit(Request({7, 8}, 4));
    harness.RunUntilIdle();
    EXPECT_EQ(next_sink->choices()[0], Expected(Request({7, 8}, 4), 0)) << "no state leaks";
  }
}

TEST(EngineTest, ScoresContinuations) {
  for (const size_t count : {1u, 3u}) {
    for (const size_t context : {1u, 4u}) {
      Harness harness({.num_slots = 2, .max_batched_tokens = 3});
      EngineRequest request;
      request.prompt.assign(context, 11);
      const std::vector<std::vector<int32_t>> all = {{5}, {6, 7, 8, 9, 10}, {1, 2}};
      request.continuations.assign(all.begin(), all.begin() + count);
      auto [handle, sink] = harness.Submit(request);
      harness.RunUntilIdle();
      ASSERT_TRUE(sink->status().ok());
      ASSERT_EQ(sink->continuations().size(), count);
      for (size_t c = 0; c < count; ++c) {
        std::vector<int32_t> seen = request.prompt;
        const std::vector<TokenScore> scores = sink->continuations()[c];
        ASSERT_EQ(scores.size(), all[c].size());
        for (size_t i = 0; i < scores.size(); ++i) {
          EXPECT_EQ(scores[i].token_id, all[c][i]);
          EXPECT_EQ(scores[i].logprob, -0.001f * FakeNextToken(seen, all[c][i], 0));
          seen.push_back(all[c][i]);
        }
      }
    }
  }
}

TEST(EngineTest, BadWordsOfSeveralTokensAreBannedAtTheirLastToken) {
  for (const int depth : {1, 2}) {
    Harness harness({.pipeline_depth = depth});
    EngineRequest request = Request({1}, 8);
    const std::vector<int32_t> free = Expected(request, 0);
    request.bad_words = {{free[2], free[3]}, {free[5]}};
    auto [handle, sink] = harness.Submit(request);
    harness.RunUntilIdle();
    const std::vector<int32_t> tokens = sink->choices()[0];
    ASSERT_EQ(tokens.size(), 8u);
    EXPECT_EQ(tokens[2], free[2]);
    EXPECT_NE(tokens[3], free[3]);
  }
}

TEST(EngineTest, CancelFreesTheSlotWithinOneTurn) {
  for (const int depth : {1, 2}) {
    Harness harness({.num_slots = 1, .pipeline_depth = depth});
    auto [first, first_sink] = harness.Submit(Request({1}, 1000));
    const EngineRequest request = Request({2}, 3);
    auto [second, second_sink] = harness.Submit(request);
    for (int i = 0; i < 5; ++i) harness.engine->StepOnce();
    EXPECT_EQ(harness.engine->Stats().slots_used, 1);
    EXPECT_EQ(second_sink->num_tokens(), 0);
    harness.engine->Cancel(first);
    harness.engine->StepOnce();
    EXPECT_EQ(first_sink->status().code(), absl::StatusCode::kCancelled);
    harness.RunUntilIdle();
    EXPECT_EQ(second_sink->choices()[0], Expected(request, 0))
        << "no state leaks into a reused slot";
    harness.engine->Cancel(first);
    harness.engine->Cancel(12345);
    harness.RunUntilIdle();
  }
}

TEST(EngineTest, StopChoiceEndsOneOfSeveral) {
  Harness harness;
  EngineRequest request = Request({1, 2}, 20);
  request.num_choices = 2;
  auto [handle, sink] = harness.Submit(request);
  for (int i = 0; i < 6; ++i) harness.engine->StepOnce();
  harness.engine->StopChoice(handle, 0);
  harness.RunUntilIdle();
  EXPECT_LT(sink->choices()[0].size(), 20u);
  EXPECT_EQ(sink->finished()[0], std::pair(FinishReason::kStop, -1));
  EXPECT_EQ(sink->choices()[1], Expected(request, 1));
  EXPECT_TRUE(sink->status().ok());
}

TEST(EngineTest, DeadlinesEndQueuedAndRunningRequests) {
  Harness harness({.num_slots = 1});
  EngineRequest running = Request({1}, 1000);
  running.deadline = harness.clock.Now() + milliseconds(10);
  auto [first, running_sink] = harness.Submit(running);
  EngineRequest queued = Request({2}, 1000);
  queued.deadline = harness.clock.Now() + milliseconds(5);
  auto [second, queued_sink] = harness.Submit(queued);
  harness.RunUntilIdle();
  EXPECT_EQ(running_sink->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(queued_sink->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_NEAR(running_sink->num_tokens(), 10, 1);
  EXPECT_EQ(queued_sink->num_tokens(), 0);
  EngineRequest late = Request({3});
  late.deadline = harness.clock.Now();
  late.sink = std::make_shared<RecordingSink>();
  EXPECT_EQ(harness.engine->Submit(late).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(EngineTest, QueueIsBoundedAndRefusesClearly) {
  Harness harness({.num_slots = 1}, {.max_num_queued_reqs = 2});
  harness.Submit(Request({1}, 100));
  harness.engine->StepOnce();
  harness.Submit(Request({2}, 1));
  harness.Submit(Request({3}, 1));
  EngineRequest refused = Request({4});
  refused.sink = std::make_shared<RecordingSink>();
  const absl::Status status = harness.engine->Submit(refused).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(status.message()).find("2 requests are waiting"), std::string::npos);
  harness.RunUntilIdle();
  EXPECT_TRUE(harness.engine->Submit(refused).ok()) << "room again";
  harness.RunUntilIdle();
}

TEST(EngineTest, DrainFinishesWhatRunsAndRefusesNewWork) {
  Harness harness;
  const EngineRequest request = Request({1}, 10);
  auto [handle, sink] = harness.Submit(request);
  EXPECT_TRUE(harness.engine->Drain(seconds(1)));
  EXPECT_EQ(sink->choices()[0].size(), 10u);
  EngineRequest refused = Request({4});
  refused.sink = std::make_shared<RecordingSink>();
  EXPECT_EQ(harness.engine->Submit(refused).status().code(), absl::StatusCode::kUnavailable);
}

TEST(EngineTest, DrainTimesOutWithUnavailable) {
  Harness harness;
  auto [handle, sink] = harness.Submit(Request({1}, 100000));
  EXPECT_FALSE(harness.engine->Drain(milliseconds(20)));
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_GT(sink->num_tokens(), 0);
}

TEST(EngineTest, DeviceErrorFailsRequestsAndIsReportedOnce) {
  for (const int depth : {1, 2}) {
    Harness harness({.pipeline_depth = depth, .fail_at_step = 4});
    int fatal = 0;
    harness.engine->SetFatalErrorCallback([&](const absl::Status&) { ++fatal; });
    auto [a, sink_a] = harness.Submit(Request({1}, 100));
    auto [b, sink_b] = harness.Submit(Request({2}, 100));
    harness.RunUntilIdle();
    EXPECT_EQ(sink_a->status().code(), absl::StatusCode::kInternal);
    EXPECT_EQ(sink_b->status().code(), absl::StatusCode::kInternal);
    EXPECT_EQ(fatal, 1);
    EXPECT_TRUE(harness.engine->Stats().failed);
    EngineRequest refused = Request({4});
    refused.sink = std::make_shared<RecordingSink>();
    EXPECT_EQ(harness.engine->Submit(refused).status().code(), absl::StatusCode::kUnavailable);
  }
}

TEST(EngineTest, PreemptedRequestsGoOnWhereTheyWere) {
  for (const int depth : {1, 2}) {
    Harness harness({.num_slots = 1, .pipeline_depth = depth});
    EngineRequest low = Request({1, 2, 3}, 30);
    low.priority = 50;
    auto [handle, low_sink] = harness.Submit(low);
    for (int i = 0; i < 6; ++i) harness.engine->StepOnce();
    const EngineRequest urgent = Request({4}, 3);
    auto [urgent_handle, urgent_sink] = harness.Submit(urgent);
    for (int i = 0; i < 8; ++i) harness.engine->StepOnce();
    EXPECT_TRUE(urgent_sink->done());
    EXPECT_FALSE(low_sink->done());
    harness.RunUntilIdle();
    EXPECT_EQ(urgent_sink->choices()[0], Expected(urgent, 0));
    EXPECT_EQ(low_sink->choices()[0], Expected(low, 0));
    EXPECT_GE(harness.backend->num_saves, 1);
  }
}

// Any mix of requests, slots, budgets, pre-emptions, cancels and pipelining gives every request the
// tokens it would get alone, within the budget, and leaves every slot free.
TEST(EngineTest, RandomWorkloadsEqualRunsAlone) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const auto pick = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    Harness harness(
        {.num_slots = pick(1, 5), .max_batched_tokens = pick(1, 50), .pipeline_depth = pick(1, 2)});
    struct Submitted {
      EngineRequest request;
      RequestHandle handle;
      std::shared_ptr<RecordingSink> sink;
      bool cancelled = false;
    };
    std::vector<Submitted> all;
    for (int turn = 0; turn < 200; ++turn) {
      if (pick(0, 3) == 0) {
        std::vector<int32_t> prompt(pick(1, 40));
        for (int32_t& token : prompt) token = pick(0, 999);
        EngineRequest request = Request(prompt, pick(1, 15));
        request.sampling.seed = pick(0, 1000);
        request.priority = pick(-3, 3);
        if (pick(0, 3) == 0) request.num_choices = pick(2, 4);
        if (pick(0, 3) == 0) request.stop_token_ids = {Expected(request, 0)[0], pick(0, 999)};
        if (pick(0, 5) == 0) request.prompt_logprobs = 1;
        auto [handle, sink] = harness.Submit(request);
        all.push_back({request, handle, sink});
      }
      if (!all.empty() && pick(0, 20) == 0) {
        Submitted& victim = all[pick(0, static_cast<int>(all.size()) - 1)];
        harness.engine->Cancel(victim.handle);
        victim.cancelled = true;
      }
      harness.engine->StepOnce();
    }
    harness.RunUntilIdle();
    for (const Submitted& one : all) {
      ASSERT_TRUE(one.sink->done());
      if (one.sink->status().code() == absl::StatusCode::kCancelled) {
        EXPECT_TRUE(one.cancelled);
        continue;
      }
      ASSERT_TRUE(one.sink->status().ok()) << one.sink->status();
      for (int32_t choice = 0; choice < one.request.num_choices; ++choice) {
        ASSERT_EQ(one.sink->choices()[choice], Expected(one.request, choice)) << "seed " << seed;
      }
      if (one.request.prompt_logprobs >= 0) {
        EXPECT_EQ(one.sink->prompt_scores().size(), one.request.prompt.size() - 1);
      }
    }
    EXPECT_EQ(harness.engine->Stats().slots_used, 0);
    EXPECT_EQ(harness.engine->Stats().num_waiting, 0);
  }
}

// The real thread: many submitters, cancels and a drain at once. For TSan.
TEST(EngineTest, ThreadedSubmitCancelAndDrain) {
  auto owned =
      std::make_unique<FakeBackend>(FakeBackend::Options{.num_slots = 3, .pipeline_depth = 2});
  FakeBackend* backend = owned.get();
  auto engine = Engine::Create(std::move(owned), {.max_num_queued_reqs = 1000});
  std::vector<std::thread> threads;
  std::atomic<int> done{0}, refused{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        EngineRequest request = Request({t, i}, 10);
        auto sink = std::make_shared<RecordingSink>();
        request.sink = sink;
        const auto handle = engine->Submit(request);
        if (!handle.ok()) {
          ++refused;
          continue;
        }
        if (i % 5 == 0) engine->Cancel(*handle);
        sink->Wait();
        if (sink->status().ok()) {
          EXPECT_EQ(sink->choices()[0], Expected(request, 0));
        } else {
          EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
        }
        ++done;
      }
    });
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_LE(engine->Stats().slots_used, 3);
    std::this_thread::sleep_for(milliseconds(1));
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(engine->Drain(seconds(10)));
  EXPECT_EQ(done + refused, 200);
  EXPECT_EQ(refused, 0);
  engine.reset();
  (void)backend;
}

}  // namespace
}  // namespace hgrn2
