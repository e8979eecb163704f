// Sampling and log-probabilities of a backend against the plain reference sampler.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "tests/backend/backend_harness.h"
#include "tests/backend/sampling_reference.h"
#include "tests/testing/golden.h"

namespace hgrn2::testing {

class BackendSamplingTest : public ::testing::TestWithParam<BackendFactory> {
 protected:
  static constexpr int kSlots = 64;
  static constexpr int kDraws = 2048;

  BackendSamplingTest() : weights_(LoadGolden("base").weights) {
    BackendOptions options;
    options.num_slots = kSlots;
    backend_ = GetParam().Make(weights_, options);
    vocab_ = weights_.config.vocab_size;
  }

  // Logits after the one-token prompt {token}.
  std::vector<float> LogitsOf(int32_t token) {
    StepBatch batch;
    AddSequence(&batch, 0, {token}, true);
    const auto logits = backend_->ForwardLogits(batch);
    EXPECT_TRUE(logits.ok());
    return *logits;
  }

  // kDraws first tokens after the prompt {token}, with seeds 0, 1, ...
  std::vector<int32_t> Draw(int32_t token, SlotSampling sampling,
                            const std::vector<int32_t>& step_bans) {
    std::vector<int32_t> drawn;
    while (drawn.size() < kDraws) {
      StepBatch batch;
      for (int slot = 0; slot < kSlots; ++slot) {
        sampling.scalars.seed = drawn.size() + static_cast<uint64_t>(slot);
        EXPECT_TRUE(backend_->ConfigureSlot(slot, sampling).ok());
        StepSequence* s = AddSequence(&batch, slot, {token}, true);
        s->sample = true;
        s->banned_token_ids = step_bans;
      }
      const StepResult result = RunStep(backend_.get(), batch);
      for (const SequenceResult& r : result.sequences) {
        drawn.push_back(r.sampled.token_id);
      }
    }
    return drawn;
  }

  // The draws have the reference's distribution, and token for token its choices where rounding
  // cannot matter.
  void ExpectReference(const SlotSampling& sampling, const std::vector<int32_t>& step_bans = {}) {
    constexpr int32_t kToken = 77;
    const ReferenceRow row = ReferenceFilter(LogitsOf(kToken), sampling, step_bans);
    ASSERT_GT(row.margin, 1e-6) << "choose other parameters: rounding decides what is kept";
    const std::vector<int32_t> drawn = Draw(kToken, sampling, step_bans);
    std::vector<int> counts(static_cast<size_t>(vocab_));
    int compared = 0;
    for (int i = 0; i < kDraws; ++i) {
      ++counts[drawn[i]];
      double margin;
      const int32_t expected =
          ReferenceDraw(row, static_cast<uint64_t>(i), sampling.num_generated, &margin);
      if (margin < 1e-4) continue;
      ASSERT_EQ(drawn[i], expected) << "seed " << i << " margin " << margin;
      ++compared;
    }
    EXPECT_GT(compared, kDraws * 9 / 10);
    EXPECT_LT(ChiSquareRatio(counts, ReferenceDistribution(row)), 1.0);
  }

  ModelWeights weights_;
  std::unique_ptr<Backend> backend_;
  int vocab_ = 0;
};

TEST_P(BackendSamplingTest, Temperature) {
  SlotSampling s;
  ExpectReference(s);
  s.scalars.temperature = 0.6f;
  ExpectReference(s);
  s.scalars.temperature = 2.5f;
  s.num_generated = 1000;
  ExpectReference(s);
}

TEST_P(BackendSamplingTest, TopK) {
  SlotSampling s;
  for (const int k : {1, 2, 17, 255, 256, 1000}) {
    s.scalars.top_k = k;
    ExpectReference(s);
  }
}

TEST_P(BackendSamplingTest, TopP) {
  SlotSampling s;
  for (const float p : {0.0f, 0.1f, 0.5f, 0.95f, 0.9999f}) {
    s.scalars.top_p = p;
    ExpectReference(s);
  }
}

TEST_P(BackendSamplingTest, MinP) {
  SlotSampling s;
  for (const float p : {0.001f, 0.1f, 0.7f}) {
    s.scalars.min_p = p;
    ExpectReference(s);
  }
}

TEST_P(BackendSamplingTest, FiltersTogether) {
  SlotSampling s;
  s.scalars.temperature = 1.3f;
  s.scalars.min_p = 0.01f;
  s.scalars.top_k = 40;
  s.scalars.top_p = 0.9f;
  ExpectReference(s);
}

TEST_P(BackendSamplingTest, TopKKeepsTies) {
  SlotSampling s;
  // Four tokens far above all others, tied: top_k 2 keeps all four.
  const auto logits = LogitsOf(77);
  s.allowed_token_ids = {3, 5, 100, 255, 9};
  s.logit_bias = {{9, -1000.0f}};
  for (const int32_t id : {3, 5, 100, 255}) s.logit_bias.emplace_back(id, -logits[id]);
  s.scalars.top_k = 2;
  const auto drawn = Draw(77, s, {});
  for (const int32_t id : {3, 5, 100, 255}) {
    EXPECT_NEAR(std::count(drawn.begin(), drawn.end(), id), kDraws / 4, 110) << id;
  }
}

TEST_P(BackendSamplingTest, BiasBansAndAllowed) {
  SlotSampling s;
  s.logit_bias = {{0, 3.0f}, {255, 4.0f}, {13, -100.0f}};
  ExpectReference(s);
  s.banned_token_ids = {1, 2, 3, 254};
  s.min_tokens = 3;
  s.min_tokens_bans = {0};
  ExpectReference(s, {255, 200});
  s.num_generated = 3;  // min_tokens reached
  ExpectReference(s, {200});
  s.allowed_token_ids = {0, 1, 7, 9, 13, 31, 100, 255};
  ExpectReference(s);
}

TEST_P(BackendSamplingTest, Penalties) {
  SlotSampling s;
  for (int32_t id = 0; id < vocab_; id += 3) s.prompt_tokens.push_back(id);
  for (int32_t id = 0; id < vocab_; id += 2) s.generated_tokens.push_back(id);
  for (int32_t id = 0; id < vocab_; id += 5) s.generated_tokens.push_back(id);
  s.scalars.repetition_penalty = 1.7f;
  ExpectReference(s);
  s.scalars.frequency_penalty = 0.6f;
  ExpectReference(s);
  s.scalars.presence_penalty = -1.2f;
  ExpectReference(s);
  s.scalars.repetition_penalty = 0.8f;
  s.scalars.frequency_penalty = 0;
  ExpectReference(s);
}

TEST_P(BackendSamplingTest, EverythingBannedIsTokenZero) {
  SlotSampling s;
  s.allowed_token_ids = {5, 6};
  s.banned_token_ids = {5, 6};
  EXPECT_EQ(Draw(1, s, {}), std::vector<int32_t>(kDraws, 0));
  s.scalars.temperature = 0;
  EXPECT_EQ(Draw(1, s, {}), std::vector<int32_t>(kDraws, 0));
}

TEST_P(BackendSamplingTest, GreedyTakesTheLowestOfTies) {
  SlotSampling s;
  s.scalars.temperature = 0;
  const auto logits = LogitsOf(9);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  EXPECT_EQ(Draw(9, s, {})[0], best);
  s.allowed_token_ids = {200, 30, 31};
  for (const int32_t id : s.allowed_token_ids) s.logit_bias.emplace_back(id, -logits[id]);
  EXPECT_EQ(Draw(9, s, {})[0], 30);
}

// Counts, position and min_tokens move with each token, one that is fed from the device too.
TEST_P(BackendSamplingTest, CountsFollowTheSequence) {
  SlotSampling s;
  s.scalars.temperature = 1.1f;
  s.scalars.repetition_penalty = 1.3f;
  s.scalars.frequency_penalty = 0.9f;
  s.scalars.presence_penalty = 0.4f;
  s.scalars.seed = 42;
  s.min_tokens = 20;
  s.prompt_tokens = {1, 2, 3, 3};
  for (int32_t id = 128; id < vocab_; ++id) s.min_tokens_bans.push_back(id);
  ASSERT_TRUE(backend_->ConfigureSlot(3, s).ok());
  std::vector<int32_t> fed = s.prompt_tokens;
  int compared = 0;
  for (int step = 0; step < 40; ++step) {
    // The logits from another slot.
    StepBatch again;
    AddSequence(&again, 7, fed, step == 0);
    const auto all = backend_->ForwardLogits(again);
    ASSERT_TRUE(all.ok());
    const ReferenceRow row = ReferenceFilter({all->end() - vocab_, all->end()}, s, {});
    StepBatch batch;
    StepSequence* sequence = AddSequence(&batch, 3, fed, step == 0);
    sequence->sample = true;
    sequence->token_on_device = step > 0 && step % 3 != 0;
    const int32_t token = RunStep(backend_.get(), batch).sequences[0].sampled.token_id;
    double margin;
    const int32_t expected = ReferenceDraw(row, 42, s.num_generated, &margin);
    if (margin > (GetParam().dtype == DType::kF32 ? 1e-3 : 0.05)) {
      ASSERT_EQ(token, expected) << "step " << step << " margin " << margin;
      ++compared;
    }
    s.generated_tokens.push_back(token);
    ++s.num_generated;
    fed = {token};
  }
  EXPECT_GT(compared, 30);
}

TEST_P(BackendSamplingTest, LogprobsRanksAndTop) {
  const std::vector<int32_t> prompt = RandomTokens(30, vocab_, 4);
  StepBatch again;
  AddSequence(&again, 0, prompt, true);
  const auto logits = backend_->ForwardLogits(again);
  ASSERT_TRUE(logits.ok());

  SlotSampling s;
  s.scalars.logprobs = 300;  // more than there are
  s.scalars.top_p = 0.5f;    // logprobs are of the raw distribution
  s.logit_bias = {{8, 50.0f}};
  ASSERT_TRUE(backend_->ConfigureSlot(1, s).ok());
  StepBatch batch;
  StepSequence* sequence = AddSequence(&batch, 1, prompt, true);
  sequence->sample = sequence->score = true;
  sequence->score_top_n = 5;
  batch.score_targets.assign(prompt.begin() + 1, prompt.end());
  batch.score_targets.push_back(-1);
  batch.score_targets[3] = -1;
  const SequenceResult result = RunStep(backend_.get(), batch).sequences[0];

  const auto expect_score = [&](const TokenScore& score, int64_t position, size_t top_n) {
    const std::vector<float> row(logits->begin() + position * vocab_,
                                 logits->begin() + (position + 1) * vocab_);
    const std::vector<double> expected = ReferenceLogprobs(row);
    EXPECT_NEAR(score.logprob, expected[score.token_id], 2e-4);
    const auto greater =
        std::count_if(row.begin(), row.end(), [&](float v) { return v > row[score.token_id]; });
    EXPECT_EQ(score.rank, 1 + greater);
    std::vector<int32_t> order(row.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return row[a] > row[b]; });
    ASSERT_EQ(score.top.size(), top_n);
    for (size_t i = 0; i < top_n; ++i) {
      EXPECT_EQ(score.top[i].token_id, order[i]);
      EXPECT_NEAR(score.top[i].logprob, expected[order[i]], 2e-4);
    }
  };
  ASSERT_EQ(result.scores.size(), 28u);
  size_t next = 0;
  for (int64_t position = 0; position < 29; ++position) {
    if (position == 3) continue;
    ASSERT_EQ(result.scores[next].token_id, prompt[position + 1]);
    expect_score(result.scores[next++], position, 5);
  }
  EXPECT_EQ(result.sampled.token_id, 8);
  expect_score(result.sampled, 29, std::min(256, GetParam().most_top));
}

TEST_P(BackendSamplingTest, NothingAskedNothingReturned) {
  StepBatch batch;
  AddSequence(&batch, 0, {1, 2, 3}, true);
  AddSequence(&batch, 1, {4}, true)->sample = true;
  ASSERT_TRUE(backend_->ConfigureSlot(1, SlotSampling()).ok());
  const StepResult result = RunStep(backend_.get(), batch);
  ASSERT_EQ(result.sequences.size(), 2u);
  EXPECT_EQ(result.sequences[0].sampled.token_id, -1);
  EXPECT_TRUE(result.sequences[0].scores.empty());
  EXPECT_GE(result.sequences[1].sampled.token_id, 0);
  EXPECT_TRUE(result.sequences[1].sampled.top.empty());
}

}  // namespace hgrn2::testing
