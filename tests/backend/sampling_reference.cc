#include "tests/backend/sampling_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace hgrn2::testing {
namespace {

constexpr double kNegInf = -std::numeric_limits<double>::infinity();

void ApplyLists(const SlotSampling& s, const std::vector<int32_t>& step_bans,
                std::vector<double>* x) {
  if (!s.allowed_token_ids.empty()) {
    std::vector<double> allowed(x->size(), kNegInf);
    for (const int32_t id : s.allowed_token_ids) allowed[id] = (*x)[id];
    *x = allowed;
  }
  for (const int32_t id : s.banned_token_ids) (*x)[id] = kNegInf;
  for (const int32_t id : step_bans) (*x)[id] = kNegInf;
  if (s.num_generated < s.min_tokens) {
    for (const int32_t id : s.min_tokens_bans) (*x)[id] = kNegInf;
  }
  for (const auto& [id, bias] : s.logit_bias) (*x)[id] += bias;
  std::map<int32_t, int> generated;
  for (const int32_t id : s.prompt_tokens) generated[id] += 0;
  for (const int32_t id : s.generated_tokens) generated[id] += 1;
  for (const auto& [id, count] : generated) {
    double& v = (*x)[id];
    v = v > 0 ? v / s.scalars.repetition_penalty : v * s.scalars.repetition_penalty;
    v -= s.scalars.frequency_penalty * count + (count > 0 ? s.scalars.presence_penalty : 0);
  }
}

// Drops what is below the threshold; notes how near the nearest other value was.
void Keep(double threshold, ReferenceRow* row) {
  for (double& v : row->x) {
    if (v != threshold) row->margin = std::min(row->margin, std::abs(v - threshold));
    if (v < threshold) v = kNegInf;
  }
}

std::vector<double> Sorted(const ReferenceRow& row) {
  std::vector<double> sorted;
  for (const double v : row.x) {
    if (v > kNegInf) sorted.push_back(v);
  }
  std::sort(sorted.rbegin(), sorted.rend());
  return sorted;
}

void TopP(double top_p, ReferenceRow* row) {
  const std::vector<double> sorted = Sorted(*row);
  double sum = 0;
  for (const double v : sorted) sum += std::exp(v - sorted[0]);
  double above = 0;
  double threshold = sorted[0];
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (i == 0 || sorted[i] != sorted[i - 1]) {
      if (i > 0) row->margin = std::min(row->margin, std::abs(above / sum - top_p));
      if (above / sum >= top_p && i > 0) break;
    }
    threshold = sorted[i];
    above += std::exp(sorted[i] - sorted[0]);
  }
  for (double& v : row->x) {
    if (v < threshold) v = kNegInf;
  }
}

}  // namespace

ReferenceRow ReferenceFilter(const std::vector<float>& logits, const SlotSampling& sampling,
                             const std::vector<int32_t>& step_bans) {
  ReferenceRow row;
  row.x.assign(logits.begin(), logits.end());
  ApplyLists(sampling, step_bans, &row.x);
  const SamplingScalars& s = sampling.scalars;
  for (double& v : row.x) v /= s.temperature;
  const double max = *std::max_element(row.x.begin(), row.x.end());
  if (s.min_p > 0) Keep(max + std::log(static_cast<double>(s.min_p)), &row);
  if (s.top_k > 0) {
    const std::vector<double> sorted = Sorted(row);
    if (sorted.size() > static_cast<size_t>(s.top_k)) Keep(sorted[s.top_k - 1], &row);
  }
  if (s.top_p < 1) TopP(s.top_p, &row);
  return row;
}

std::vector<double> ReferenceDistribution(const ReferenceRow& row) {
  const double max = *std::max_element(row.x.begin(), row.x.end());
  std::vector<double> p;
  for (const double v : row.x) p.push_back(std::exp(v - max));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

int32_t ReferenceDraw(const ReferenceRow& row, uint64_t seed, uint32_t position, double* margin) {
  const uint64_t key = PositionKey(seed, position);
  double best = kNegInf, second = kNegInf;
  int32_t best_id = 0;
  for (size_t id = 0; id < row.x.size(); ++id) {
    const double e = ExponentialNoise(key, static_cast<uint32_t>(id));
    const double v = row.x[id] - std::log(e);
    if (v > best) {
      second = best;
      best = v;
      best_id = static_cast<int32_t>(id);
    } else {
      second = std::max(second, v);
    }
  }
  *margin = best - second;
  return best_id;
}

std::vector<double> ReferenceLogprobs(const std::vector<float>& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits) sum += std::exp(v - max);
  std::vector<double> out;
  for (const float v : logits) out.push_back(v - max - std::log(sum));
  return out;
}

double ChiSquareRatio(const std::vector<int>& counts, const std::vector<double>& probabilities) {
  const double draws = std::accumulate(counts.begin(), counts.end(), 0.0);
  double chi = 0, pooled_expected = 0, pooled_count = 0;
  int classes = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = probabilities[i] * draws;
    if (expected == 0 && counts[i] > 0) return std::numeric_limits<double>::infinity();
    if (expected < 5) {
      pooled_expected += expected;
      pooled_count += counts[i];
      continue;
    }
    chi += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++classes;
  }
  if (pooled_expected > 0) {
    chi += (pooled_count - pooled_expected) * (pooled_count - pooled_expected) /
           std::max(pooled_expected, 1.0);
    ++classes;
  }
  const double df = std::max(1, classes - 1);
  constexpr double kZ = 3.719;  // of p = 1e-4
  const double root = 1 - 2 / (9 * df) + kZ * std::sqrt(2 / (9 * df));
  return chi / (df * root * root * root);
}

}  // namespace hgrn2::testing
