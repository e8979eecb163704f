// The sampler computes logarithms for the few tokens that may win and draws from top_p without
// finding its threshold first; here everything is computed, in double.
#include "kernels/cpu/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "tests/kernels_cpu/targets.h"

namespace hgrn2::cpu {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Answer {
  int32_t token = -1;
  bool clear = false;  // no rounding could change it
};

// What min_p, top_k and top_p keep, in this order; `clear` turns false near a threshold.
std::vector<bool> Kept(const std::vector<double>& x, const SamplingScalars& s, bool* clear) {
  const double max = *std::max_element(x.begin(), x.end());
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return x[a] > x[b]; });
  double threshold = s.min_p > 0 ? max + std::log(s.min_p) : -kInfinity;
  if (s.min_p > 0) {
    for (const double v : x) *clear &= std::abs(v - threshold) > 1e-4;
  }
  if (s.top_k > 0 && s.top_k < static_cast<int>(x.size())) {
    threshold = std::max(threshold, x[order[s.top_k - 1]]);
  }
  std::vector<bool> kept(x.size());
  double total = 0;
  for (const double v : x) total += v >= threshold ? std::exp(v - max) : 0;
  double above = 0;
  for (size_t i = 0; i < order.size();) {
    const double value = x[order[i]];
    if (!(value >= threshold) || value == -kInfinity) break;
    if (s.top_p < 1 && i > 0 && !(above < s.top_p * total)) break;
    double tied = 0;
    for (; i < order.size() && x[order[i]] == value; ++i) {
      kept[order[i]] = true;
      tied += std::exp(value - max);
    }
    above += tied;
    if (s.top_p < 1) *clear &= std::abs(above - s.top_p * total) > 1e-4 * total;
  }
  return kept;
}

Answer Expected(const std::vector<float>& logits, const SamplingScalars& s, uint32_t position) {
  std::vector<double> x;
  for (const float v : logits) x.push_back(v / s.temperature);
  Answer answer{.clear = true};
  const std::vector<bool> kept = Kept(x, s, &answer.clear);
  const uint64_t key = PositionKey(s.seed, position);
  double best = -kInfinity;
  double second = -kInfinity;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!kept[i]) continue;
    const double score = x[i] - std::log(ExponentialNoise(key, static_cast<uint32_t>(i)));
    second = std::max(second, std::min(best, score));
    if (score > best) answer.token = static_cast<int32_t>(i);
    best = std::max(best, score);
  }
  answer.clear &= best - second > 1e-4 * (1 + std::abs(best));
  return answer;
}

class SamplerTest : public EachTarget {};

TEST_P(SamplerTest, DrawsWhatAllNoiseWouldDraw) {
  std::mt19937_64 random(11);
  const auto uniform = [&](double a, double b) {
    return std::uniform_real_distribution<double>(a, b)(random);
  };
  int compared = 0;
  for (int row = 0; row < 150; ++row) {
    const int vocab = row % 3 == 0 ? 4096 : 1 + static_cast<int>(random() % 700);
    const int padded = (vocab + kLogitsPadding - 1) / kLogitsPadding * kLogitsPadding;
    // From rows where any token may win to rows where one does.
    std::normal_distribution<float> normal(0, static_cast<float>(std::exp(uniform(-6, 3))));
    std::vector<float> logits(static_cast<size_t>(vocab));
    for (float& v : logits) {
      v = row % 7 == 0 && random() % 3 == 0 ? -std::numeric_limits<float>::infinity()
                                            : normal(random) + (row % 5 == 0 ? 1000.0f : 0.0f);
    }
    logits[0] = normal(random);
    std::vector<float> memory(logits);
    memory.resize(static_cast<size_t>(padded));
    PadLogits(memory.data(), vocab, padded);
    SamplerScratch scratch(vocab);
    for (uint32_t position = 0; position < 24; ++position) {
      SampleParams p;
      p.logits = memory.data();
      p.vocab = vocab;
      p.position = position;
      p.scratch = &scratch;
      p.scalars.seed = random();
      p.scalars.temperature = position % 3 == 0 ? 1.0f : static_cast<float>(uniform(0.1, 3));
      if (position & 1) p.scalars.top_p = static_cast<float>(uniform(0.01, 0.99));
      if (position & 2) p.scalars.top_k = 1 + static_cast<int32_t>(random() % 60);
      if (position & 4) p.scalars.min_p = static_cast<float>(uniform(0.001, 0.3));
      const Answer expected = Expected(logits, p.scalars, position);
      if (!expected.clear) continue;
      ++compared;
      ASSERT_EQ(SampleToken(p), expected.token)
          << "row " << row << ", position " << position << ", top_p " << p.scalars.top_p
          << ", top_k " << p.scalars.top_k << ", min_p " << p.scalars.min_p;
    }
  }
  EXPECT_GT(compared, 2500);
}

INSTANTIATE_TEST_SUITE_P(Targets, SamplerTest, Targets(), TargetName);

}  // namespace
}  // namespace hgrn2::cpu
