// The three forms of the recurrence are one function, whatever the gates.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/reference/hgrn2_recurrence.h"
#include "kernels/reference/hgrn2_reference.h"
#include "tests/testing/numeric.h"

namespace hgrn2::reference {
namespace {

using hgrn2::testing::RelativeError;

constexpr double kTolerance = 1e-12;

struct Gates {
  std::string name;
  // The range of the gate's logit; log g = log sigmoid(logit).
  double min_logit;
  double max_logit;
  // Probability of an extreme gate: half of those 0 exactly, half 1 - 2^-53 or so.
  double extreme;
};

std::ostream& operator<<(std::ostream& out, const Gates& gates) { return out << gates.name; }

struct Case {
  int64_t T, K, V;
  std::vector<double> q, log_g, i, state;

  Case(const Gates& gates, int64_t tokens, int64_t key_dim, int64_t value_dim, uint32_t seed)
      : T(tokens), K(key_dim), V(value_dim) {
    std::mt19937_64 rng(seed);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> logit(gates.min_logit, gates.max_logit);
    std::uniform_real_distribution<double> unit;
    for (int64_t j = 0; j < T * K; ++j) {
      q.push_back(normal(rng));
      const double draw = unit(rng);
      log_g.push_back(draw < gates.extreme / 2 ? -std::numeric_limits<double>::infinity()
                      : draw < gates.extreme   ? -1e-16
                                               : LogGate(logit(rng), 0));
    }
    for (int64_t j = 0; j < T * V; ++j) i.push_back(normal(rng));
    for (int64_t j = 0; j < K * V; ++j) state.push_back(normal(rng));
  }

  struct Result {
    std::vector<double> o, state;
  };
  template <typename Run>
  Result With(const Run& run) const {
    Result result{std::vector<double>(T * V, NAN), state};
    run(RecurrenceParams{.num_tokens = T,
                         .key_dim = K,
                         .value_dim = V,
                         .scale = 1 / std::sqrt(static_cast<double>(K)),
                         .q = q.data(),
                         .log_g = log_g.data(),
                         .i = i.data(),
                         .state = result.state.data(),
                         .o = result.o.data()});
    return result;
  }
};

class RecurrenceTest : public ::testing::TestWithParam<Gates> {};

TEST_P(RecurrenceTest, ChunkedIsRecurrent) {
  for (const int64_t T : {1, 2, 17, 64, 100}) {
    const Case c(GetParam(), T, 8, 5, 11 + T);
    const Case::Result expected = c.With(RecurrentForward);
    for (const int64_t chunk : {1, 2, 16, 64, 128}) {
      const auto actual = c.With([&](const RecurrenceParams& p) { ChunkedForward(p, chunk); });
      EXPECT_LE(RelativeError(actual.o, expected.o), kTolerance) << T << " tokens by " << chunk;
      EXPECT_LE(RelativeError(actual.state, expected.state), kTolerance) << T << " by " << chunk;
    }
  }
}

TEST_P(RecurrenceTest, ReplayIsRecurrent) {
  for (const int64_t T : {1, 15, 16, 17, 75}) {
    const Case c(GetParam(), T, 7, 6, 23 + T);
    const Case::Result expected = c.With(RecurrentForward);
    for (const int64_t window : {1, 3, 16, 100}) {
      const auto actual = c.With([&](const RecurrenceParams& p) { ReplayForward(p, window); });
      EXPECT_LE(RelativeError(actual.o, expected.o), kTolerance) << T << " tokens by " << window;
      EXPECT_LE(RelativeError(actual.state, expected.state), kTolerance) << T << " by " << window;
    }
  }
}

// Every entry of S is a convex combination of past inputs, which is why float16 can hold it.
TEST_P(RecurrenceTest, StateIsBoundedByTheInputs) {
  Case c(GetParam(), 200, 8, 4, 5);
  c.state.assign(c.state.size(), 0.0);
  const Case::Result result = c.With(RecurrentForward);
  double max_input = 0;
  for (const double x : c.i) max_input = std::max(max_input, std::abs(x));
  for (const double s : result.state) EXPECT_LE(std::abs(s), max_input * (1 + 1e-12));
}

INSTANTIATE_TEST_SUITE_P(Gates, RecurrenceTest,
                         ::testing::Values(Gates{"mild", -2, 4, 0}, Gates{"near_zero", -60, -20, 0},
                                           Gates{"near_one", 20, 40, 0}, Gates{"any", -700, 700, 0},
                                           Gates{"extremes", -5, 5, 0.3}),
                         [](const auto& info) { return info.param.name; });

TEST(RecurrenceTest, ByHand) {
  // K = V = 1, scale 1: S = 0.5 * 2 + 0.5 * 4 = 3, o = 10 * 3.
  const double q = 10, log_g = std::log(0.5), i = 4;
  double state = 2, o = 0;
  RecurrentForward({.num_tokens = 1,
                    .key_dim = 1,
                    .value_dim = 1,
                    .scale = 1,
                    .q = &q,
                    .log_g = &log_g,
                    .i = &i,
                    .state = &state,
                    .o = &o});
  EXPECT_NEAR(state, 3, 1e-15);
  EXPECT_NEAR(o, 30, 1e-14);
}

TEST(RecurrenceTest, NoTokensChangeNothing) {
  const Case c(Gates{"mild", -2, 4, 0}, 0, 4, 4, 1);
  EXPECT_EQ(c.With(RecurrentForward).state, c.state);
  EXPECT_EQ(c.With([](const RecurrenceParams& p) { ChunkedForward(p, 16); }).state, c.state);
  EXPECT_EQ(c.With([](const RecurrenceParams& p) { ReplayForward(p, 16); }).state, c.state);
}

TEST(OpsTest, LogGateAgreesWithTheDirectFormula) {
  for (const double lb : {0.0, 1e-9, 0.25, 0.999}) {
    for (const double f : {-30.0, -1.0, 0.0, 2.5, 30.0}) {
      const double gate = lb + (1 - lb) / (1 + std::exp(-f));
      EXPECT_NEAR(LogGate(f, lb), std::log(gate), 1e-12 + 1e-12 * std::abs(std::log(gate)));
    }
  }
}

TEST(OpsTest, LogGateKeepsWhatTheDirectFormulaLoses) {
  EXPECT_DOUBLE_EQ(LogGate(-800, 0), -800);            // exp would underflow
  EXPECT_DOUBLE_EQ(LogGate(50, 0), -std::exp(-50.0));  // 1 + exp(-50) is 1
  EXPECT_NEAR(LogGate(-800, 0.25), std::log(0.25), 1e-15);
}

TEST(OpsTest, RmsNorm) {
  const double x[] = {3, -4};
  const float weight[] = {2, 0.5f};
  double y[2];
  RmsNorm(x, weight, 0, 2, y);
  EXPECT_NEAR(y[0], 6 / std::sqrt(12.5), 1e-15);
  EXPECT_NEAR(y[1], -2 / std::sqrt(12.5), 1e-15);
  RmsNorm(x, nullptr, 3.5, 2, y);
  EXPECT_NEAR(y[0], 3.0 / 4, 1e-15);
}

TEST(OpsTest, ShortConvMeetsTheNewestInputLast) {
  const float weight[] = {1, 10, 100};  // one channel, size 3
  double history[] = {0, 0};
  const double inputs[] = {1, 2, 3, 4};
  const double expected[] = {100, 210, 321, 432};
  for (int t = 0; t < 4; ++t) {
    double y;
    ShortConv(weight, &inputs[t], 1, 3, history, &y);
    EXPECT_EQ(y, expected[t]);
  }
  EXPECT_EQ(history[0], 3);
  EXPECT_EQ(history[1], 4);
}

TEST(OpsTest, ShortConvOfSizeOneScales) {
  const float weight[] = {2};
  double x = 3;
  ShortConv(weight, &x, 1, 1, nullptr, &x);
  EXPECT_EQ(x, 6);
}

}  // namespace
}  // namespace hgrn2::reference
