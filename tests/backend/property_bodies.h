// What holds for every backend without a reference: batches, slots, states, errors.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "tests/backend/backend_harness.h"
#include "tests/testing/golden.h"
#include "tests/testing/numeric.h"

namespace hgrn2::testing {

class BackendPropertyTest : public ::testing::TestWithParam<BackendFactory> {
 protected:
  static SlotSampling Random(uint64_t seed) {
    SlotSampling s;
    s.scalars.temperature = 0.9f;
    s.scalars.top_p = 0.95f;
    s.scalars.seed = seed;
    s.scalars.logprobs = 2;
    return s;
  }
  static void ExpectSame(const TokenScore& a, const TokenScore& b, bool exact) {
    ASSERT_EQ(a.token_id, b.token_id);
    EXPECT_EQ(a.rank, b.rank);
    ASSERT_EQ(a.top.size(), b.top.size());
    if (exact) {
      EXPECT_EQ(a.logprob, b.logprob);
    } else {
      EXPECT_NEAR(a.logprob, b.logprob, 1e-4);
    }
    for (size_t i = 0; i < a.top.size(); ++i) EXPECT_EQ(a.top[i].token_id, b.top[i].token_id);
  }
};

TEST_P(BackendPropertyTest, LogitsDoNotDependOnTheBatch) {
  if (!GetParam().batch_invariant) GTEST_SKIP() << "not promised by " << GetParam().name;
  const ModelWeights weights = LoadGolden("heads").weights;
  const int vocab = weights.config.vocab_size;
  BackendOptions options;
  options.num_threads = 2;
  const auto backend = GetParam().Make(weights, options);
  options.num_threads = 3;
  const auto alone = GetParam().Make(weights, options);
  // Prefills of many lengths around decodes; then all of them one token further.
  const std::vector<int> lengths = {1, 40, 1, 1, 7, 16, 1, 33, 2, 1, 1, 17, 3};
  std::vector<std::vector<int32_t>> prompts;
  StepBatch prefill, decode;
  for (size_t i = 0; i < lengths.size(); ++i) {
    prompts.push_back(RandomTokens(lengths[i] + 1, vocab, static_cast<uint32_t>(i)));
    const auto end = prompts[i].end() - 1;
    AddSequence(&prefill, static_cast<int>(i), {prompts[i].begin(), end}, true);
    AddSequence(&decode, static_cast<int>(i), {*end}, false);
  }
  const auto prefill_logits = backend->ForwardLogits(prefill);
  const auto decode_logits = backend->ForwardLogits(decode);
  ASSERT_TRUE(prefill_logits.ok() && decode_logits.ok());
  for (size_t i = 0; i < lengths.size(); ++i) {
    std::vector<float> expected(
        prefill_logits->begin() + prefill.sequences[i].token_begin * vocab,
        prefill_logits->begin() + (prefill.sequences[i].token_begin + lengths[i]) * vocab);
    expected.insert(expected.end(), decode_logits->begin() + i * vocab,
                    decode_logits->begin() + (i + 1) * vocab);
    const auto actual = FeedForLogits(alone.get(), 5, prompts[i], {lengths[i], 1});
    EXPECT_EQ(actual, expected) << "sequence " << i << " of " << lengths[i];
    EXPECT_EQ(StateOf(alone.get(), 5), StateOf(backend.get(), static_cast<int>(i)));
  }
}

TEST_P(BackendPropertyTest, SampledTokensDoNotDependOnTheBatch) {
  if (!GetParam().tokens_batch_invariant) GTEST_SKIP() << "not promised by " << GetParam().name;
  const ModelWeights weights = LoadGolden("base").weights;
  const int vocab = weights.config.vocab_size;
  const auto backend = GetParam().Make(weights);
  const auto alone = GetParam().Make(weights);
  constexpr int kSequences = 9;
  constexpr int kSteps = 12;
  // Sequence i joins at step i % 4 with a prompt of its own length; all decode from then on.
  std::vector<std::vector<TokenScore>> generated(kSequences);
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < kSequences; ++i) {
    prompts.push_back(RandomTokens(1 + i * 5, vocab, static_cast<uint32_t>(i)));
    ASSERT_TRUE(backend->ConfigureSlot(i, Random(100 + static_cast<uint64_t>(i))).ok());
  }
  for (int step = 0; step < kSteps; ++step) {
    StepBatch batch;
    std::vector<int> members;
    for (int i = 0; i < kSequences; ++i) {
      if (step < i % 4) continue;
      members.push_back(i);
      StepSequence* s = step == i % 4
                            ? AddSequence(&batch, i, prompts[i], true)
                            : AddSequence(&batch, i, {generated[i].back().token_id}, false);
      s->sample = true;
      s->token_on_device = step > i % 4 && i % 2 == 0;
      if (s->token_on_device) batch.tokens.back() = 0;  // must be ignored
    }
    const StepResult result = RunStep(backend.get(), batch);
    for (size_t m = 0; m < members.size(); ++m) {
      generated[members[m]].push_back(result.sequences[m].sampled);
    }
  }
  for (int i = 0; i < kSequences; ++i) {
    const auto expected = Generate(alone.get(), 2, prompts[i],
                                   Random(100 + static_cast<uint64_t>(i)), kSteps - i % 4);
    ASSERT_EQ(generated[i].size(), expected.size());
    for (size_t t = 0; t < expected.size(); ++t) {
      ExpectSame(generated[i][t], expected[t], GetParam().batch_invariant);
    }
  }
}

TEST_P(BackendPropertyTest, SavedRestoredAndCopiedStatesResumeTokenForToken) {
  if (!GetParam().resumes_exactly) GTEST_SKIP() << "not promised by " << GetParam().name;
  for (const char* name : {"conv", "nolb"}) {
    const ModelWeights weights = LoadGolden(name).weights;
    const auto prompt = RandomTokens(23, weights.config.vocab_size, 5);
    const auto backend = GetParam().Make(weights);
    const auto expected = Ids(Generate(backend.get(), 0, prompt, Random(1), 20));
    // Again, interrupted after 8 tokens.
    const auto first = Ids(Generate(backend.get(), 1, prompt, Random(1), 8));
    ASSERT_EQ(first, std::vector<int32_t>(expected.begin(), expected.begin() + 8));
    const auto blob = backend->SaveState(1);
    ASSERT_TRUE(blob.ok());
    EXPECT_EQ(blob->model_hash, weights.hash);
    ASSERT_TRUE(backend->CopyState(1, 2).ok());
    const auto other = GetParam().Make(weights);
    ASSERT_TRUE(other->RestoreState(4, *blob).ok());
    ASSERT_TRUE(backend->RestoreState(3, *blob).ok());
    SlotSampling resumed = Random(1);
    resumed.num_generated = 8;
    resumed.prompt_tokens = prompt;
    resumed.generated_tokens = first;
    const std::vector<int32_t> rest(expected.begin() + 8, expected.end());
    const auto resume = [&](Backend* b, int slot) {
      EXPECT_TRUE(b->ConfigureSlot(slot, resumed).ok());
      return Ids(Continue(b, slot, first.back(), 12));
    };
    EXPECT_EQ(resume(backend.get(), 2), rest) << name << ": copied";
    EXPECT_EQ(resume(backend.get(), 3), rest) << name << ": restored";
    EXPECT_EQ(resume(other.get(), 4), rest) << name << ": restored elsewhere";
    EXPECT_EQ(Ids(Continue(backend.get(), 1, first.back(), 12)), rest) << name << ": saved";
  }
}

// Copied behind steps that nobody has waited for yet. The number of tokens is such that a replay
// ring is never empty.
TEST_P(BackendPropertyTest, CopiesAndSnapshotsGoOnAlike) {
  for (const char* name : {"conv", "nolb"}) {
    const ModelWeights weights = LoadGolden(name).weights;
    const auto prompt = RandomTokens(23, weights.config.vocab_size, 5);
    const auto backend = GetParam().Make(weights);
    const auto first = Ids(Generate(backend.get(), 1, prompt, Random(1), 8));
    const int pending = backend->info().pipeline_depth;
    for (int step = 0; step < pending; ++step) {
      StepBatch batch;
      AddSequence(&batch, 1, {first[step]}, false);
      ASSERT_TRUE(backend->Enqueue(batch).ok());
    }
    if (pending > 1) {  // a backend without a pipeline may want its step collected first
      ASSERT_TRUE(backend->CopyState(1, 2).ok());
      ASSERT_TRUE(backend->CopyState(2, 3).ok());
    }
    StepResult result;
    for (int step = 0; step < pending; ++step) ASSERT_TRUE(backend->Collect(&result).ok());
    if (pending == 1) {
      ASSERT_TRUE(backend->CopyState(1, 2).ok());
      ASSERT_TRUE(backend->CopyState(2, 3).ok());
    }
    const auto blob = backend->SaveState(1);
    ASSERT_TRUE(blob.ok());
    ASSERT_TRUE(backend->RestoreState(4, *blob).ok());
    std::vector<std::vector<TokenScore>> rest;
    for (const int slot : {1, 2, 3, 4}) {
      ASSERT_TRUE(backend->ConfigureSlot(slot, Random(2)).ok());
      rest.push_back(Continue(backend.get(), slot, first.back(), 20));
      ASSERT_EQ(rest.back().size(), 20u);
      for (int t = 0; t < 20; ++t) ExpectSame(rest.back()[t], rest[0][t], true);
    }
  }
}

TEST_P(BackendPropertyTest, ASlotLeaksNothingToItsNextSequence) {
  const ModelWeights weights = LoadGolden("conv").weights;
  const auto backend = GetParam().Make(weights);
  const auto prompt = RandomTokens(9, weights.config.vocab_size, 1);
  SlotSampling heavy = Random(1);
  heavy.scalars.repetition_penalty = 3;
  heavy.banned_token_ids = {1, 2, 3};
  heavy.logit_bias = {{4, 100.0f}};
  heavy.prompt_tokens = prompt;
  const auto expected = Ids(Generate(backend.get(), 0, prompt, Random(2), 10));
  Generate(backend.get(), 1, RandomTokens(30, weights.config.vocab_size, 2), heavy, 10);
  EXPECT_EQ(Ids(Generate(backend.get(), 1, prompt, Random(2), 10)), expected);
  // One token at a time, the first resets.
  EXPECT_EQ(FeedForLogits(backend.get(), 1, prompt, {1}),
            FeedForLogits(backend.get(), 5, prompt, {1}));
}

TEST_P(BackendPropertyTest, RestoreConvertsAndRefuses) {
  const ModelWeights weights = LoadGolden("heads").weights;
  const auto backend = GetParam().Make(weights);
  FeedForLogits(backend.get(), 0, RandomTokens(20, weights.config.vocab_size, 1), {20});
  auto blob = backend->SaveState(0);
  ASSERT_TRUE(blob.ok());
  const std::vector<float> state = StateOf(backend.get(), 0);
  // The same state as float32, float16 and FP8.
  StateBlob f32 = *blob;
  f32.dtype = DType::kF32;
  f32.scales.clear();
  f32.state.resize(state.size() * 4);
  std::memcpy(f32.state.data(), state.data(), f32.state.size());
  ASSERT_TRUE(backend->RestoreState(1, f32).ok());
  EXPECT_LE(RelativeError(StateOf(backend.get(), 1), state), 1e-7);
  StateBlob fp8 = f32;
  fp8.dtype = DType::kF8E4M3;
  fp8.state.assign(state.size(), 0x38 | 0x80);  // -1.0
  const float scale = 0.5f;
  for (size_t row = 0; row < state.size() / weights.config.head_dim; ++row) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&scale);
    fp8.scales.insert(fp8.scales.end(), bytes, bytes + 4);
  }
  ASSERT_TRUE(backend->RestoreState(2, fp8).ok());
  for (const float x : StateOf(backend.get(), 2)) ASSERT_EQ(x, -0.5f);

  StateBlob wrong = *blob;
  wrong.model_hash = "0123456789abcdef";
  EXPECT_EQ(backend->RestoreState(3, wrong).code(), absl::StatusCode::kFailedPrecondition);
  wrong = *blob;
  wrong.state.pop_back();
  EXPECT_EQ(backend->RestoreState(3, wrong).code(), absl::StatusCode::kInvalidArgument);
  wrong = *blob;
  wrong.conv.push_back(0);
  EXPECT_EQ(backend->RestoreState(3, wrong).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend->RestoreState(-1, *blob).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend->SaveState(backend->info().num_slots).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(BackendPropertyTest, InfoTellsTheTruth) {
  const ModelWeights weights = LoadGolden("heads").weights;
  BackendOptions options;
  options.num_slots = 5;
  options.max_batched_tokens = 33;
  const auto backend = GetParam().Make(weights, options);
  const BackendInfo& info = backend->info();
  EXPECT_EQ(info.dtype, GetParam().dtype);
  EXPECT_EQ(info.num_slots, 5);
  EXPECT_EQ(info.max_batched_tokens, 33);
  EXPECT_GE(info.state_bytes_per_sequence,
            weights.config.StateSize() * static_cast<int64_t>(SizeOf(info.state_dtype)));
  EXPECT_GT(info.weight_bytes, weights.config.NumParameters());
  EXPECT_FALSE(info.device.empty());
  EXPECT_GE(info.pipeline_depth, 1);
}

}  // namespace hgrn2::testing
