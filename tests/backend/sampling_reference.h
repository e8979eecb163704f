// The sampler of kernels/sampling.h written plainly in double precision, with a sort.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/backend/backend.h"

namespace hgrn2::testing {

// What steps 1 to 4 leave of a row of logits.
struct ReferenceRow {
  std::vector<double> x;  // divided by the temperature; -inf: not kept
  // Smallest relative distance of a kept or dropped token from its threshold: below 1e-6, rounding
  // may decide otherwise.
  double margin = 1;
};
// `sampling`'s lists and counts describe the moment of the draw. temperature > 0.
ReferenceRow ReferenceFilter(const std::vector<float>& logits, const SlotSampling& sampling,
                             const std::vector<int32_t>& step_bans);

// Probability of each token.
std::vector<double> ReferenceDistribution(const ReferenceRow& row);

// Step 5. *margin: how much the best beats the second.
int32_t ReferenceDraw(const ReferenceRow& row, uint64_t seed, uint32_t position, double* margin);

// Natural log-probabilities of raw logits.
std::vector<double> ReferenceLogprobs(const std::vector<float>& logits);

// Chi-square of counts against probabilities * draws, classes of expectation below 5 pooled, over
// its value at a one-sided p of 1e-4 (Wilson-Hilferty): above 1 is a rejection. Infinite if a token
// of probability 0 was drawn.
double ChiSquareRatio(const std::vector<int>& counts, const std::vector<double>& probabilities);

}  // namespace hgrn2::testing
