// The host's part of a CUDA step: pure functions, tested without a device.
#include "engine/backend/cuda_step.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "engine/backend/cuda_buffers.h"

namespace hgrn2 {
namespace {

template <typename T>
std::vector<T> Get(const StepPlan& plan, const StepArray& array) {
  std::vector<T> values(array.count);
  if (array.count > 0) {
    std::memcpy(values.data(), plan.bytes.data() + array.offset, array.count * sizeof(T));
  }
  return values;
}

StepSequence* Add(StepBatch* batch, int32_t slot, std::vector<int32_t> tokens) {
  StepSequence s;
  s.slot = slot;
  s.token_begin = static_cast<int32_t>(batch->tokens.size());
  s.num_tokens = static_cast<int32_t>(tokens.size());
  batch->tokens.insert(batch->tokens.end(), tokens.begin(), tokens.end());
  batch->sequences.push_back(s);
  return &batch->sequences.back();
}

TEST(BuildStepTest, DecodeIsPaddedToItsBucket) {
  StepBatch batch;
  StepSequence* s = Add(&batch, 5, {42});
  s->sample = s->reset_state = true;
  s->banned_token_ids = {7, 8};
  s = Add(&batch, 2, {0});
  s->token_on_device = true;  // and does not sample
  s = Add(&batch, 9, {0});
  s->token_on_device = s->sample = true;
  const std::vector<int32_t> ages(16, 3);
  StepPlan plan;
  BuildStep(batch, {128, DType::kBF16, DType::kF16, ages, 0}, false, &plan);
  const StepShape& shape = plan.shape;
  EXPECT_TRUE(shape.graphable);
  EXPECT_EQ(shape.padded_tokens, 8);
  EXPECT_EQ(Get<int32_t>(plan, shape.tokens), (std::vector<int32_t>{42, -1, -1, 0, 0, 0, 0, 0}));
  EXPECT_EQ(Get<int32_t>(plan, shape.decode_slots),
            (std::vector<int32_t>{5, 2, 9, -1, -1, -1, -1, -1}));
  EXPECT_EQ(Get<uint8_t>(plan, shape.decode_reset), (std::vector<uint8_t>{1, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(Get<uint8_t>(plan, shape.age_written), Get<uint8_t>(plan, shape.decode_reset));
  const auto rows = Get<cuda::LogitRow>(plan, shape.rows);
  ASSERT_EQ(rows.size(), 8u);
  EXPECT_EQ(rows[0].slot, 5);
  EXPECT_EQ(rows[0].ban_count, 2);
  EXPECT_EQ(rows[1].slot, -1);  // nothing to sample
  EXPECT_EQ(rows[2].slot, 9);
  EXPECT_EQ(rows[2].out_index, 1);
  EXPECT_EQ(rows[3].x_row, -1);
  EXPECT_EQ(plan.outputs[0].sampled, 0);
  EXPECT_EQ(plan.outputs[1].sampled, -1);
  EXPECT_EQ(plan.outputs[2].sampled, 1);

  // Another batch of the bucket: the same places, so that one graph serves both.
  StepBatch other;
  for (int i = 0; i < 8; ++i) Add(&other, i, {i})->sample = true;
  StepPlan second;
  BuildStep(other, {128, DType::kBF16, DType::kF16, ages, 0}, false, &second);
  EXPECT_EQ(second.bytes.size(), plan.bytes.size());
  EXPECT_EQ(second.shape.rows.offset, shape.rows.offset);
  EXPECT_EQ(second.shape.bans.offset, shape.bans.offset);
}

TEST(BuildStepTest, ManyBansAreNotForAGraph) {
  StepBatch batch;
  StepSequence* s = Add(&batch, 0, {1});
  s->sample = true;
  s->banned_token_ids.assign(8 * kGraphBansPerRow + 1, 3);
  const std::vector<int32_t> ages(1);
  StepPlan plan;
  BuildStep(batch, {128, DType::kBF16, DType::kF16, ages, 0}, false, &plan);
  EXPECT_FALSE(plan.shape.graphable);
  EXPECT_EQ(plan.shape.bans.count, 8 * kGraphBansPerRow + 1);
}

// Steps of a load repeat each other's shape although numbers of sequences and tokens differ.
TEST(BuildStepTest, DecodesBesidePromptsArePaddedToFewShapes) {
  const std::vector<int32_t> ages(32, 3);
  const StepContext context = {128, DType::kBF16, DType::kF16, ages, 0};
  const auto build = [&](int decodes, std::vector<int> prompts, StepPlan* plan) {
    StepBatch batch;
    int slot = 0;
    for (int i = 0; i < decodes; ++i) Add(&batch, slot++, {7})->sample = true;
    for (const int tokens : prompts) {
      StepSequence* s = Add(&batch, slot++, std::vector<int32_t>(tokens, 5));
      s->reset_state = true;
    }
    batch.sequences[0].banned_token_ids = {1, 2};
    BuildStep(batch, context, false, plan);
  };
  StepPlan a, b, c;
  build(9, {20, 2, 3}, &a);
  build(12, {10, 3, 2, 2}, &b);
  build(17, {10, 3, 2, 2}, &c);
  const StepShape& shape = a.shape;
  EXPECT_TRUE(shape.mixed_graphable && b.shape.mixed_graphable && c.shape.mixed_graphable);
  EXPECT_FALSE(shape.graphable);
  EXPECT_EQ(MixedGraphKeyOf(shape), (MixedGraphKey{48, 16, 4, 16}));
  EXPECT_EQ(MixedGraphKeyOf(b.shape), (MixedGraphKey{32, 16, 4, 16}));
  EXPECT_EQ(MixedGraphKeyOf(c.shape), (MixedGraphKey{48, 32, 4, 32}));
  EXPECT_EQ(shape.num_tokens, 34);
  auto slots = Get<int32_t>(a, shape.decode_slots);
  EXPECT_EQ(slots[8], 8);
  EXPECT_EQ(slots[9], -1);
  EXPECT_EQ(Get<int32_t>(a, shape.decode_rows)[15], 47);  // a row of padding
  EXPECT_EQ(Get<int32_t>(a, shape.age_slots).size(), 20u);
  EXPECT_EQ(Get<int32_t>(a, shape.age_slots)[12], -1);
  const auto items = Get<cuda::PrefillItem>(a, shape.prefill_items);
  EXPECT_EQ(items[2].num_tokens, 3);
  EXPECT_EQ(items[3].num_tokens, 0);
  const auto rows = Get<cuda::LogitRow>(a, shape.rows);
  EXPECT_EQ(rows[8].slot, 8);
  EXPECT_EQ(rows[9].slot, -1);
  EXPECT_EQ(shape.bans.count, 16 * kGraphBansPerRow);
  EXPECT_LE(a.bytes.size(), MaxStepBytes(48, 32));

  build(9, {20, 2, 3}, &b);
  EXPECT_EQ(a.bytes, b.bytes);
  build(10, {20, 2, 3}, &b);  // another step of the same key has every array at the same place
  EXPECT_EQ(MixedGraphKeyOf(b.shape), MixedGraphKeyOf(shape));
  EXPECT_EQ(b.shape.bans.offset, shape.bans.offset);
  EXPECT_EQ(b.bytes.size(), a.bytes.size());
}

TEST(BuildStepTest, NotEveryStepOfDecodesBesidePromptsIsForAGraph) {
  const std::vector<int32_t> ages = {0, 0, 0, 4};
  const StepContext context = {128, DType::kBF16, DType::kF16, ages, 0};
  const auto graphable = [&](int prompt_slot, int tokens, bool score, bool sample) {
    StepBatch batch;
    StepSequence* s = Add(&batch, 0, {7});
    s->sample = sample;
    s = Add(&batch, prompt_slot, std::vector<int32_t>(tokens, 5));
    s->score = score;
    batch.score_targets.assign(batch.tokens.size(), score ? 1 : -1);
    StepPlan plan;
    BuildStep(batch, context, false, &plan);
    return plan.shape.mixed_graphable;
  };
  EXPECT_TRUE(graphable(1, 6, false, true));
  EXPECT_FALSE(graphable(1, 7, false, true));     // no row of padding for padded decodes
  EXPECT_FALSE(graphable(1, 6, true, true));      // scores
  EXPECT_FALSE(graphable(3, 6, false, true));     // its slot's ring is folded first
  EXPECT_FALSE(graphable(1, 6, false, false));    // no logits
  EXPECT_FALSE(graphable(1, 2000, false, true));  // cut into items
}

TEST(BuildStepTest, MixedBatchOfPrefillsDecodesAndScores) {
  StepBatch batch;
  Add(&batch, 3, {1, 2, 3})->sample = true;  // continues a slot whose ring holds tokens
  Add(&batch, 4, {9})->sample = true;
  StepSequence* s = Add(&batch, 6, {5, 6, 7, 8});
  s->score = s->sample = s->reset_state = true;
  s->score_top_n = 2;
  batch.score_targets = {-1, -1, -1, -1, 6, 7, -1, 11};
  std::vector<int32_t> ages(8);
  ages[3] = 2, ages[6] = 5;
  StepPlan plan;
  BuildStep(batch, {128, DType::kBF16, DType::kF16, ages, 0}, false, &plan);
  const StepShape& shape = plan.shape;
  EXPECT_FALSE(shape.graphable);
  EXPECT_EQ(shape.num_tokens, 8);
  EXPECT_EQ(Get<int32_t>(plan, shape.decode_slots), (std::vector<int32_t>{4}));
  EXPECT_EQ(Get<int32_t>(plan, shape.decode_rows), (std::vector<int32_t>{3}));
  EXPECT_EQ(Get<int32_t>(plan, shape.flush_slots), (std::vector<int32_t>{3}));  // 6 is reset
  EXPECT_EQ(Get<uint8_t>(plan, shape.age_written), (std::vector<uint8_t>{1, 0, 1}));
  const auto items = Get<cuda::PrefillItem>(plan, shape.prefill_items);
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[1].token_begin, 4);
  EXPECT_EQ(items[1].reset, 1);
  ASSERT_EQ(shape.num_rows, 6);
  const auto rows = Get<cuda::LogitRow>(plan, shape.rows);
  EXPECT_EQ(rows[0].x_row, 2);
  EXPECT_EQ(rows[1].x_row, 3);
  EXPECT_EQ(rows[2].target, 6);
  EXPECT_EQ(rows[2].top_n, 2);
  EXPECT_EQ(rows[4].target, 11);
  EXPECT_EQ(rows[4].x_row, 7);
  EXPECT_EQ(rows[5].target, -1);
  EXPECT_EQ(rows[5].x_row, 7);
  EXPECT_EQ(plan.outputs[2].num_scores, 3);
  EXPECT_EQ(plan.outputs[2].sampled, 5);
  EXPECT_LE(plan.bytes.size(), MaxStepBytes(8, 8));
}

CudaSizes Sizes() {
  CudaSizes s;
  s.config.hidden_size = 2048, s.config.num_layers = 24, s.config.num_heads = 16;
  s.config.head_dim = 128, s.config.intermediate_size = 5632, s.config.vocab_size = 32000;
  s.ring_length = 16;
  s.max_tokens = 16384;
  s.num_slots = 1000;
  return s;
}

TEST(FitSlotsTest, ClampsToWhatFits) {
  const CudaSizes s = Sizes();
  // 24 layers of 2048 x 128 float16, and 16 tokens of two times 2048 bfloat16.
  EXPECT_EQ(s.StateBytesPerSlot(), int64_t{24} * (2048 * 128 * 2 + 16 * 2 * 2048 * 2));
  const int64_t weights = int64_t{3} << 30;
  const auto fit = [&](int64_t bytes) { return FitSlots(s, weights, {.total = bytes}).value(); };
  for (const int32_t slots : {1, 7, 100, 999}) {
    CudaSizes some = s;
    some.num_slots = slots;
    const int64_t needed = weights + some.WorkspaceBytes() + slots * some.BytesPerSlot();
    EXPECT_EQ(fit(needed), slots);
    if (slots > 1) {
      EXPECT_EQ(fit(needed - 1), slots - 1);
    }
  }
  EXPECT_EQ(fit(weights + s.WorkspaceBytes() + 5000 * s.BytesPerSlot()), 1000);
}

TEST(FitSlotsTest, OthersMemoryAndTheShareCount) {
  const MemoryBudget budget = {.total = 1000, .utilization = 0.75, .taken = 100, .reserve = 50};
  EXPECT_EQ(budget.Bytes(), 600);
}

TEST(FitSlotsTest, SaysWhyNothingFits) {
  const MemoryBudget budget = {int64_t{10} << 30, 0.5, int64_t{2} << 30, int64_t{1} << 30};
  const auto slots = FitSlots(Sizes(), int64_t{3} << 30, budget);
  EXPECT_EQ(slots.status().code(), absl::StatusCode::kResourceExhausted);
  const std::string message(slots.status().message().data(), slots.status().message().size());
  for (const char* part : {"10.00 GiB x 0.50 (--gpu-memory-utilization)", "2.00 GiB in use",
                           "1.00 GiB for the driver", "= 2.00 GiB", "weights of 3.00 GiB"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
  }
}

}  // namespace
}  // namespace hgrn2
