// The engine over the real CPU backend: a request's tokens and log-probabilities are the same bits
// alone and in any mix of other requests, budgets, pre-emptions and thread counts.
#include <gtest/gtest.h>

#include <random>

#include "engine/engine.h"
#include "tests/testing/golden.h"

namespace hgrn2 {
namespace {

class CollectingSink : public TokenSink {
 public:
  void OnPromptScores(std::vector<TokenScore> s) override { prompt_scores = std::move(s); }
  void OnToken(int32_t choice, TokenScore token) override {
    choices.resize(std::max<size_t>(choices.size(), choice + 1));
    choices[choice].push_back(std::move(token));
  }
  void OnContinuationScores(int32_t index, std::vector<TokenScore> s) override {
    continuations.resize(std::max<size_t>(continuations.size(), index + 1));
    continuations[index] = std::move(s);
  }
  void OnDone(const absl::Status& s, const Usage&, const Timing&) override {
    status = s;
    done = true;
  }

  std::vector<TokenScore> prompt_scores;
  std::vector<std::vector<TokenScore>> choices, continuations;
  absl::Status status;
  bool done = false;
};

void ExpectSame(const std::vector<TokenScore>& a, const std::vector<TokenScore>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].token_id, b[i].token_id) << i;
    ASSERT_EQ(a[i].logprob, b[i].logprob) << i;  // the same bits
    ASSERT_EQ(a[i].rank, b[i].rank) << i;
  }
}

struct Case {
  const char* golden;
  DType dtype;
  DType state_dtype;
};

class EngineCpuTest : public ::testing::TestWithParam<Case> {
 protected:
  static std::unique_ptr<Engine> MakeEngine(const ModelWeights& weights, int32_t num_slots,
                                            int32_t max_batched_tokens, int32_t threads) {
    BackendOptions options;
    options.dtype = GetParam().dtype;
    options.state_dtype = GetParam().state_dtype;
    options.num_slots = num_slots;
    options.max_batched_tokens = max_batched_tokens;
    options.num_threads = threads;
    auto backend = MakeCpuBackend(weights, options);
    EXPECT_TRUE(backend.ok()) << backend.status();
    EngineOptions engine;
    engine.manual_stepping = true;
    return Engine::Create(*std::move(backend), engine);
  }
};

EngineRequest RandomRequest(std::mt19937& random, int32_t vocab) {
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  EngineRequest request;
  // Lengths around the chunk boundaries of the scheduler and of the kernels.
  const std::vector<int> lengths = {1, 2, 15, 16, 17, 63, 64, 65, 66, 128, 129, 150, 193, 257};
  request.prompt.resize(lengths[pick(0, static_cast<int>(lengths.size()) - 1)]);
  for (int32_t& token : request.prompt) token = pick(0, vocab - 1);
  request.max_tokens = pick(1, 12);
  request.sampling.seed = pick(0, 1000);
  request.sampling.temperature = pick(0, 3) == 0 ? 0.0f : 0.9f;
  request.sampling.top_p = pick(0, 1) == 0 ? 1.0f : 0.9f;
  request.sampling.repetition_penalty = pick(0, 2) == 0 ? 1.2f : 1.0f;
  request.sampling.logprobs = 1;
  request.priority = pick(-2, 2);
  if (pick(0, 3) == 0) request.num_choices = pick(2, 3);
  if (pick(0, 4) == 0) request.prompt_logprobs = 0;
  if (pick(0, 4) == 0) {
    request.continuations.resize(pick(1, 3));
    for (auto& continuation : request.continuations) {
      continuation.resize(pick(1, 20));
      for (int32_t& token : continuation) token = pick(0, vocab - 1);
    }
  }
  return request;
}

TEST_P(EngineCpuTest, ABatchOfNEqualsNBatchesOfOne) {
  const testing::GoldenCase golden = testing::LoadGolden(GetParam().golden);
  const ModelWeights& weights = golden.weights;
  std::mt19937 random(1);
  std::vector<EngineRequest> requests;
  std::vector<std::shared_ptr<CollectingSink>> alone, mixed;
  for (int i = 0; i < 40; ++i) requests.push_back(RandomRequest(random, weights.config.vocab_size));

  const auto one_by_one = MakeEngine(weights, 4, 1024, 1);
  for (EngineRequest request : requests) {
    alone.push_back(std::make_shared<CollectingSink>());
    request.sink = alone.back();
    ASSERT_TRUE(one_by_one->Submit(request).ok());
    while (one_by_one->StepOnce()) {
    }
  }
  const auto together = MakeEngine(weights, 5, 70, 2);
  for (size_t i = 0; i < requests.size(); ++i) {
    EngineRequest request = requests[i];
    mixed.push_back(std::make_shared<CollectingSink>());
    request.sink = mixed.back();
    ASSERT_TRUE(together->Submit(request).ok());
    for (size_t turn = 0; turn < i % 4; ++turn) together->StepOnce();
  }
  while (together->StepOnce()) {
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(alone[i]->done && mixed[i]->done);
    ASSERT_TRUE(mixed[i]->status.ok()) << mixed[i]->status;
    ASSERT_EQ(alone[i]->choices.size(), mixed[i]->choices.size());
    ExpectSame(alone[i]->prompt_scores, mixed[i]->prompt_scores);
    for (size_t c = 0; c < alone[i]->choices.size(); ++c) {
      ExpectSame(alone[i]->choices[c], mixed[i]->choices[c]);
    }
    for (size_t c = 0; c < requests[i].continuations.size(); ++c) {
      ExpectSame(alone[i]->continuations[c], mixed[i]->continuations[c]);
    }
  }
  EXPECT_EQ(together->Stats().slots_used, 0);
}

// Branches in the prompt's slot, in free slots and from a copy in host memory: all the same.
TEST_P(EngineCpuTest, ChoicesDoNotDependOnWhereTheirStatesCameFrom) {
  const testing::GoldenCase golden = testing::LoadGolden(GetParam().golden);
  std::mt19937 random(3);
  for (const int length : {2, 65, 130}) {
    EngineRequest request;
    request.prompt.resize(length);
    for (int32_t& token : request.prompt) {
      token = static_cast<int32_t>(random() % golden.weights.config.vocab_size);
    }
    request.num_choices = 4;
    request.max_tokens = 10;
    request.sampling.seed = 11;
    request.sampling.temperature = 0.9f;
    request.sampling.repetition_penalty = 1.2f;
    request.sampling.logprobs = 1;
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    const auto run = [&](Engine* engine, EngineRequest r) {
      sinks.push_back(std::make_shared<CollectingSink>());
      r.sink = sinks.back();
      ASSERT_TRUE(engine->Submit(r).ok());
      while (engine->StepOnce()) {
      }
    };
    for (const int slots : {8, 3, 1}) {
      run(MakeEngine(golden.weights, slots, 1024, 1).get(), request);
      ASSERT_EQ(sinks.back()->choices.size(), 4u);
    }
    for (int c = 0; c < 4; ++c) {
      SCOPED_TRACE(c);
      ExpectSame(sinks[0]->choices[c], sinks[1]->choices[c]);
      ExpectSame(sinks[0]->choices[c], sinks[2]->choices[c]);
      if (GetParam().dtype != DType::kF32 || GetParam().state_dtype != DType::kF32) continue;
      // Alone the prompt's last token is part of the prefill: another order of sums.
      EngineRequest alone = request;
      alone.num_choices = 1;
      alone.sampling.seed = ChoiceSeed(request.sampling.seed, c);
      run(MakeEngine(golden.weights, 2, 1024, 1).get(), alone);
      ASSERT_EQ(sinks.back()->choices[0].size(), 10u);
      for (int t = 0; t < 10; ++t) {
        EXPECT_EQ(sinks.back()->choices[0][t].token_id, sinks[0]->choices[c][t].token_id);
        EXPECT_NEAR(sinks.back()->choices[0][t].logprob, sinks[0]->choices[c][t].logprob, 1e-4);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineCpuTest,
                         ::testing::Values(Case{"heads", DType::kF32, DType::kF32},
                                           Case{"heads", DType::kBF16, DType::kF16},
                                           Case{"conv", DType::kF32, DType::kF32},
                                           Case{"base", DType::kBF16, DType::kBF16},
                                           Case{"nolb", DType::kF32, DType::kF16}),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           return std::string(info.param.golden) + "_" + Name(info.param.dtype) +
                                  "_state_" + Name(info.param.state_dtype);
                         });

}  // namespace
}  // namespace hgrn2
