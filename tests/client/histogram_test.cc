#include "client/load/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "client/load/random.h"

namespace hgrn2::client {
namespace {

double ExactQuantile(std::vector<int64_t> values, double q) {
  std::sort(values.begin(), values.end());
  const double rank = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(rank);
  const size_t high = std::min(low + 1, values.size() - 1);
  const double part = rank - static_cast<double>(low);
  return static_cast<double>(values[low]) + part * static_cast<double>(values[high] - values[low]);
}

class HistogramAccuracy : public testing::TestWithParam<int> {};

TEST_P(HistogramAccuracy, QuantilesAreWithinTheStatedErrorOfTheSortedValues) {
  const int bits = GetParam();
  const double bound = std::ldexp(1.0, -(bits + 1)) * 1.0001;
  Random random(1);
  for (const double sigma : {0.1, 1.0, 3.0}) {
    Histogram h(bits);
    std::vector<int64_t> values;
    double sum = 0;
    for (int i = 0; i < 20'000; ++i) {
      values.push_back(static_cast<int64_t>(5e6 * std::exp(sigma * random.Normal())));
      h.Add(values.back());
      sum += static_cast<double>(values.back());
    }
    for (const double q : {0.0, 0.001, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0}) {
      const double exact = ExactQuantile(values, q);
      EXPECT_NEAR(h.Quantile(q), exact, bound * exact + 1) << "q " << q << " sigma " << sigma;
    }
    EXPECT_NEAR(h.Mean(), sum / 20'000, 1e-9 * h.Mean());
    EXPECT_EQ(h.Min(), *std::min_element(values.begin(), values.end()));
    EXPECT_EQ(h.Max(), *std::max_element(values.begin(), values.end()));
  }
}
INSTANTIATE_TEST_SUITE_P(Bits, HistogramAccuracy, testing::Values(6, 10));

TEST(Histogram, IsExactForSmallValues) {
  Histogram h;
  for (int i = 0; i <= 1000; ++i) h.Add(i);
  EXPECT_DOUBLE_EQ(h.Quantile(0.5), 500);
  EXPECT_DOUBLE_EQ(h.Quantile(0.999), 999);
  EXPECT_NEAR(h.StdDev(), std::sqrt((1001.0 * 1001 - 1) / 12), 1e-6);
  EXPECT_NEAR(h.ShareAtMost(250), 251.0 / 1001, 1e-12);
}

TEST(Histogram, InterpolatesBetweenRanks) {
  Histogram h;
  h.Add(100);
  h.Add(200);
  EXPECT_DOUBLE_EQ(h.Quantile(0.5), 150);  // as numpy.percentile([100, 200], 50)
}

TEST(Histogram, MergingEqualsAdding) {
  Histogram all;
  Histogram parts[2];
  Random random(2);
  for (int i = 0; i < 5000; ++i) {
    const auto v = static_cast<int64_t>(random.Below(uint64_t{1} << (1 + i % 40)));
    all.Add(v);
    parts[i % 2].Add(v);
  }
  parts[0].Merge(parts[1]);
  EXPECT_EQ(parts[0].count(), all.count());
  EXPECT_EQ(parts[0].Max(), all.Max());
  for (const double q : {0.01, 0.5, 0.99}) EXPECT_EQ(parts[0].Quantile(q), all.Quantile(q));
  EXPECT_NEAR(parts[0].StdDev(), all.StdDev(), 1e-6 * all.StdDev());
}

TEST(Histogram, CdfRisesToOne) {
  Histogram h;
  Random random(3);
  for (int i = 0; i < 10'000; ++i) h.Add(static_cast<int64_t>(1e6 * random.Exponential()));
  const auto cdf = h.Cdf(100);
  ASSERT_GT(cdf.size(), 50u);
  ASSERT_LE(cdf.size(), 102u);
  for (size_t i = 1; i < cdf.size(); ++i) {
    EXPECT_GT(cdf[i].first, cdf[i - 1].first);
    EXPECT_GT(cdf[i].second, cdf[i - 1].second);
  }
  EXPECT_DOUBLE_EQ(cdf.back().second, 1);
}

TEST(Histogram, EmptyAndNegative) {
  Histogram h;
  EXPECT_EQ(h.Quantile(0.5), 0);
  EXPECT_EQ(h.StdDev(), 0);
  EXPECT_TRUE(h.Cdf(10).empty());
  h.Add(-5);
  EXPECT_EQ(h.Max(), 0);
  EXPECT_EQ(h.count(), 1u);
}

}  // namespace
}  // namespace hgrn2::client
