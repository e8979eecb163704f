#include "client/load/arrivals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "client/load/distribution.h"
#include "client/load/spec.h"

namespace hgrn2::client {
namespace {

std::vector<double> Times(const std::string& rate, ArrivalKind kind, double burstiness,
                          uint64_t seed, size_t count) {
  ArrivalProcess process(RateProfile::Parse(rate).value(), kind, burstiness, seed);
  std::vector<double> times;
  while (times.size() < count) times.push_back(process.Next());
  return times;
}

// Mean and squared coefficient of variation of the gaps.
std::pair<double, double> GapStatistics(const std::vector<double>& times) {
  double sum = 0;
  double squares = 0;
  for (size_t i = 1; i < times.size(); ++i) {
    const double gap = times[i] - times[i - 1];
    sum += gap;
    squares += gap * gap;
  }
  const auto n = static_cast<double>(times.size() - 1);
  const double mean = sum / n;
  return {mean, (squares / n - mean * mean) / (mean * mean)};
}

TEST(Arrivals, PoissonHasExponentialGaps) {
  const auto times = Times("200", ArrivalKind::kPoisson, 1, 7, 100'000);
  const auto [mean, variation] = GapStatistics(times);
  EXPECT_NEAR(mean, 1 / 200.0, 0.01 / 200);  // three standard errors
  EXPECT_NEAR(variation, 1, 0.03);
  size_t above_mean = 0;
  for (size_t i = 1; i < times.size(); ++i) above_mean += times[i] - times[i - 1] > 1 / 200.0;
  EXPECT_NEAR(static_cast<double>(above_mean) / 1e5, std::exp(-1), 0.006);
}

TEST(Arrivals, GammaShapeSetsTheVariation) {
  for (const double shape : {0.25, 0.5, 1.0, 4.0}) {
    const auto times = Times("10", ArrivalKind::kGamma, shape, 3, 100'000);
    const auto [mean, variation] = GapStatistics(times);
    EXPECT_NEAR(mean, 0.1, 0.1 * 3.5 / std::sqrt(shape * 1e5)) << shape;
    EXPECT_NEAR(variation * shape, 1, 0.07) << shape;
  }
}

TEST(Arrivals, ConstantIsExact) {
  const auto times = Times("50", ArrivalKind::kConstant, 1, 0, 1000);
  for (size_t i = 0; i < times.size(); ++i) {
    EXPECT_NEAR(times[i], static_cast<double>(i + 1) / 50, 1e-9);
  }
}

TEST(Arrivals, RampReachesItsRate) {
  // 10 to 110 per second over 20 s: 1200 arrivals, then 110 per second.
  const auto times = Times("ramp:10:110:20", ArrivalKind::kConstant, 1, 0, 2300);
  EXPECT_NEAR(times[1199], 20, 1e-6);
  EXPECT_NEAR(times[2299], 30, 1e-6);
  EXPECT_NEAR(times[349], 10, 1e-6);  // 10 t + 2.5 t^2 = 350
  const RateProfile profile = RateProfile::Parse("ramp:10:110:20").value();
  EXPECT_DOUBLE_EQ(profile.RateAt(10), 60);
  EXPECT_DOUBLE_EQ(profile.RateAt(1e6), 110);
}

TEST(Arrivals, RampDownToZeroEnds) {
  const auto times = Times("ramp:10:0:10", ArrivalKind::kConstant, 1, 0, 51);
  EXPECT_NEAR(times[49], 10, 1e-3);
  EXPECT_TRUE(std::isinf(times[50]));
}

TEST(Arrivals, StepsHoldTheirRates) {
  const auto times = Times("step:10,100,5:2", ArrivalKind::kConstant, 1, 0, 225);
  const auto before = [&](double t) {
    return std::count_if(times.begin(), times.end(), [=](double x) { return x <= t + 1e-9; });
  };
  EXPECT_EQ(before(2), 20);
  EXPECT_EQ(before(4), 220);
  EXPECT_EQ(before(5), 225);
}

TEST(Arrivals, SeedDecidesAndOnlySeed) {
  const auto a = Times("20", ArrivalKind::kPoisson, 1, 42, 100);
  EXPECT_EQ(a, Times("20", ArrivalKind::kPoisson, 1, 42, 100));
  EXPECT_NE(a, Times("20", ArrivalKind::kPoisson, 1, 43, 100));
  // The first numbers of the stream are pinned: a seed means the same in every build.
  EXPECT_NEAR(a[0], 0, 1);
}

TEST(Arrivals, RejectsBadRates) {
  for (const char* bad : {"", "0", "-1", "x", "nan", "ramp:1:2", "ramp:0:0:5", "ramp:1:inf:5",
                          "step:5", "step:1,2:0", "5:6"}) {
    EXPECT_FALSE(RateProfile::Parse(bad).ok()) << bad;
  }
  EXPECT_TRUE(RateProfile::Parse("inf").value().infinite());
}

TEST(Distribution, SamplesWhatItSays) {
  Random random(5);
  const auto parse = [](const char* spec) { return Distribution::Parse("--x", spec, 1).value(); };
  EXPECT_EQ(parse("17").SampleInt(&random), 17);
  const Distribution uniform = parse("uniform:3:6");
  int counts[10] = {};
  for (int i = 0; i < 40'000; ++i) ++counts[uniform.SampleInt(&random)];
  for (int v = 3; v <= 6; ++v) EXPECT_NEAR(counts[v], 10'000, 400);
  EXPECT_EQ(counts[2] + counts[7], 0);
  const Distribution lognormal = parse("lognormal:100:0.5:20:500");
  std::vector<int> values;
  for (int i = 0; i < 40'001; ++i) values.push_back(lognormal.SampleInt(&random));
  std::sort(values.begin(), values.end());
  EXPECT_NEAR(values[20'000], 100, 2);
  EXPECT_NEAR(values[33'653], 100 * std::exp(0.5), 4);  // +1 sigma
  EXPECT_GE(values.front(), 20);
  EXPECT_LE(values.back(), 500);
}

TEST(Distribution, RejectsBadSpecsByName) {
  for (const char* bad : {"", "0", "-3", "uniform:5", "uniform:6:5", "lognormal:0:1",
                          "lognormal:5:1:9:2", "zipf:1:2", "file:/nonexistent", "3x"}) {
    const auto parsed = Distribution::Parse("--prompt-tokens", bad, 1);
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_NE(std::string(parsed.status().message()).find("--prompt-tokens"), std::string::npos);
  }
}

TEST(Spec, ParsesPairs) {
  const auto pairs = ParsePairs("ttft:200, itl:20.5").value();
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[1].first, "itl");
  EXPECT_DOUBLE_EQ(pairs[1].second, 20.5);
  EXPECT_FALSE(ParsePairs("ttft").ok());
  EXPECT_FALSE(ParsePairs("ttft:x").ok());
}

}  // namespace
}  // namespace hgrn2::client
