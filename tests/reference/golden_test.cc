// The fp64 oracle against the reference implementation's float32 results.
#include "tests/testing/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/reference/hgrn2_reference.h"
#include "tests/testing/oracle.h"

namespace hgrn2::testing {
namespace {

// The reference's own rounding: float32 through the whole model.
constexpr double kTolerance = 2e-6;

class GoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  GoldenTest() : golden_(LoadGolden(GetParam())), oracle_(MakeOracle(golden_.weights)) {}
  const GoldenCase golden_;
  const reference::Model oracle_;
};

TEST_P(GoldenTest, DataIsComplete) {
  const ModelConfig& c = golden_.weights.config;
  ASSERT_EQ(golden_.num_rows, 3);
  ASSERT_EQ(golden_.num_tokens, 96);
  ASSERT_EQ(golden_.num_greedy, 32);
  EXPECT_EQ(golden_.greedy_prompt_len, 24);
  EXPECT_EQ(golden_.RowLogits(2).size(), 96u * c.vocab_size);
  EXPECT_EQ(golden_.RowState(2).size(), static_cast<size_t>(c.StateSize()));
  EXPECT_EQ(golden_.greedy_margin.size(), golden_.greedy_ids.size());
}

TEST_P(GoldenTest, LogitsAndStates) {
  for (int64_t n = 0; n < golden_.num_rows; ++n) {
    reference::State state(oracle_.shape);
    const std::vector<double> logits = reference::Forward(oracle_, golden_.RowIds(n), &state);
    EXPECT_LE(RelativeError(logits, golden_.RowLogits(n)), kTolerance) << "row " << n;
    EXPECT_LE(RelativeError(state.s, golden_.RowState(n)), kTolerance) << "row " << n;
  }
}

// A transposed state would be noticed: K and V are equal, so shapes alone would not tell.
TEST_P(GoldenTest, StateOrderMatters) {
  reference::State state(oracle_.shape);
  reference::Forward(oracle_, golden_.RowIds(0), &state);
  const int64_t K = oracle_.shape.head_dim;
  std::vector<double> transposed(state.s.size());
  for (size_t matrix = 0; matrix < state.s.size(); matrix += K * K) {
    for (int64_t k = 0; k < K; ++k) {
      for (int64_t v = 0; v < K; ++v) {
        transposed[matrix + v * K + k] = state.s[matrix + k * K + v];
      }
    }
  }
  EXPECT_GT(RelativeError(transposed, golden_.RowState(0)), 0.1);
}

TEST_P(GoldenTest, ASplitPromptIsTheSamePrompt) {
  const std::vector<int32_t> ids = golden_.RowIds(1);
  reference::State whole(oracle_.shape);
  const std::vector<double> expected = reference::Forward(oracle_, ids, &whole);
  reference::State split(oracle_.shape);
  std::vector<double> actual;
  for (size_t begin = 0, size = 1; begin < ids.size(); begin += size, size = size * 2 + 1) {
    const size_t end = std::min(ids.size(), begin + size);
    const std::vector<double> part =
        reference::Forward(oracle_, {ids.begin() + begin, ids.begin() + end}, &split);
    actual.insert(actual.end(), part.begin(), part.end());
  }
  EXPECT_EQ(actual, expected);  // the same operations in the same order
  EXPECT_EQ(split.s, whole.s);
  EXPECT_EQ(split.conv, whole.conv);
}

TEST_P(GoldenTest, GreedyContinuations) {
  const int64_t vocab = oracle_.shape.vocab_size;
  for (int64_t n = 0; n < golden_.num_rows; ++n) {
    reference::State state(oracle_.shape);
    std::vector<double> logits = reference::Forward(oracle_, golden_.GreedyPrompt(n), &state);
    for (int64_t step = 0; step < golden_.num_greedy; ++step) {
      std::vector<double> last(logits.end() - vocab, logits.end());
      const int64_t best = std::max_element(last.begin(), last.end()) - last.begin();
      const float margin = golden_.greedy_margin[n * golden_.num_greedy + step];
      const int32_t expected = golden_.greedy_ids[n * golden_.num_greedy + step];
      ASSERT_GT(margin, 0) << "the reference's choice was a tie";
      ASSERT_EQ(best, expected) << "row " << n << " step " << step << " margin " << margin;
      const double best_logit = last[best];
      last[best] = -INFINITY;
      EXPECT_NEAR(best_logit - *std::max_element(last.begin(), last.end()), margin, 1e-4);
      logits = reference::Forward(oracle_, {expected}, &state);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest, ::testing::ValuesIn(kGoldenCases),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace hgrn2::testing
