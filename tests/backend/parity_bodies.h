// A backend against the reference: golden data and the fp64 oracle.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/reference/hgrn2_reference.h"
#include "tests/backend/backend_harness.h"
#include "tests/testing/golden.h"
#include "tests/testing/numeric.h"
#include "tests/testing/oracle.h"

namespace hgrn2::testing {

class BackendParityTest : public ::testing::TestWithParam<BackendFactory> {};

TEST_P(BackendParityTest, GoldenLogitsAndStates) {
  for (const char* name : kGoldenCases) {
    const GoldenCase golden = LoadGolden(name);
    const auto backend = GetParam().Make(golden.weights);
    for (int64_t n = 0; n < golden.num_rows; ++n) {
      const auto logits = FeedForLogits(backend.get(), 1, golden.RowIds(n), {1000});
      EXPECT_LE(RelativeError(logits, golden.RowLogits(n)), GetParam().logits_tolerance)
          << name << " row " << n;
      EXPECT_LE(RelativeError(StateOf(backend.get(), 1), golden.RowState(n)),
                GetParam().state_tolerance)
          << name << " row " << n;
    }
  }
}

TEST_P(BackendParityTest, StepByStepIsOnePassIsAnySplit) {
  for (const char* name : kGoldenCases) {
    const GoldenCase golden = LoadGolden(name);
    const auto backend = GetParam().Make(golden.weights);
    const std::vector<int32_t> ids = golden.RowIds(0);
    const auto whole = FeedForLogits(backend.get(), 0, ids, {1000});
    const auto whole_state = StateOf(backend.get(), 0);
    const std::vector<std::vector<int32_t>> splits = {{1}, {2}, {16}, {17, 1, 30}, {5, 64, 3}};
    for (const auto& split : splits) {
      const auto logits = FeedForLogits(backend.get(), 3, ids, split);
      const std::string what = std::string(name) + " split by " + std::to_string(split[0]);
      EXPECT_LE(RelativeError(logits, whole), GetParam().split_tolerance) << what;
      EXPECT_LE(RelativeError(StateOf(backend.get(), 3), whole_state), GetParam().split_tolerance)
          << what;
      EXPECT_LE(RelativeError(logits, golden.RowLogits(0)), GetParam().logits_tolerance) << what;
    }
  }
}

// Near-ties may go either way in another arithmetic; the first such token ends a row's comparison.
TEST_P(BackendParityTest, GreedyContinuations) {
  const double margin = GetParam().dtype == DType::kF32 ? 1e-3 : 0.5;
  int compared = 0;
  for (const char* name : kGoldenCases) {
    const GoldenCase golden = LoadGolden(name);
    const auto backend = GetParam().Make(golden.weights);
    SlotSampling greedy;
    greedy.scalars.temperature = 0;
    for (int64_t n = 0; n < golden.num_rows; ++n) {
      const auto ids = Ids(Generate(backend.get(), 0, golden.GreedyPrompt(n), greedy,
                                    static_cast<int>(golden.num_greedy)));
      for (int64_t step = 0; step < golden.num_greedy; ++step, ++compared) {
        if (golden.greedy_margin[n * golden.num_greedy + step] <= margin) break;
        ASSERT_EQ(ids[step], golden.greedy_ids[n * golden.num_greedy + step])
            << name << " row " << n << " step " << step;
      }
    }
  }
  EXPECT_GT(compared, GetParam().dtype == DType::kF32 ? 300 : 12);
}

// Shapes that are multiples of nothing, against the oracle.
TEST_P(BackendParityTest, AwkwardShapes) {
  struct Shape {
    int heads, head_dim, conv_size, vocab;
  };
  for (const Shape& s : {Shape{1, 32, 0, 1}, Shape{3, 64, 4, 333}, Shape{1, 256, 0, 97},
                         Shape{5, 20, 3, 50}, Shape{2, 96, 1, 31}}) {
    const ModelWeights weights = SmallModel(s.head_dim, DType::kF32, s.conv_size, s.heads, s.vocab);
    if (GetParam().supports && !GetParam().supports(weights.config)) continue;
    const auto backend = GetParam().Make(weights);
    const auto ids = RandomTokens(37, s.vocab, 3);
    const reference::Model oracle = MakeOracle(weights);
    reference::State state(oracle.shape);
    const auto expected = reference::Forward(oracle, ids, &state);
    const auto actual = FeedForLogits(backend.get(), 0, ids, {21, 1, 4});
    EXPECT_LE(RelativeError(actual, expected), GetParam().logits_tolerance)
        << s.heads << " heads of " << s.head_dim;
    EXPECT_LE(RelativeError(StateOf(backend.get(), 0), state.s), GetParam().state_tolerance)
        << s.heads << " heads of " << s.head_dim;
  }
}

// Gates near zero: products of sixteen of them are far below what float32 holds.
TEST_P(BackendParityTest, GatesNearZero) {
  ModelWeights weights = SmallModel(64, DType::kF32);
  weights.lower_bounds.assign(weights.lower_bounds.size(), 0.0f);
  // Large forget projections make the gates' logits range over some +-100.
  std::vector<std::vector<float>> f_projs;
  for (LayerWeights& layer : weights.layers) {
    std::vector<float>& f = f_projs.emplace_back(layer.f_proj.ToFloat());
    for (float& x : f) x *= 300;
    layer.f_proj.data = f.data();
  }
  const auto backend = GetParam().Make(weights);
  const auto ids = RandomTokens(64, weights.config.vocab_size, 9);
  const reference::Model oracle = MakeOracle(weights);
  reference::State state(oracle.shape);
  const auto expected = reference::Forward(oracle, ids, &state);
  const auto actual = FeedForLogits(backend.get(), 0, ids, {64});
  const auto stepped = FeedForLogits(backend.get(), 1, ids, {1});
  // The gates multiply the rounding of the products by their own slope.
  const double tolerance =
      GetParam().dtype == DType::kF32 ? std::max(2e-4, GetParam().split_tolerance) : 0.3;
  EXPECT_LE(RelativeError(actual, expected), tolerance);
  EXPECT_LE(RelativeError(stepped, expected), tolerance);
}

}  // namespace hgrn2::testing
