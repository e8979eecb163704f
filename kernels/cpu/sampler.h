// Sampling and log-probabilities of one row of logits; kernels/sampling.h says what they mean.
//
// Rows are padded to a multiple of kLogitsPadding elements with -inf.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/sampling.h"

namespace hgrn2::cpu {

inline constexpr int kLogitsPadding = 16;

// Fills logits[vocab, padded) with -inf.
void PadLogits(float* logits, int vocab, int padded);

// Scratch of one thread for rows of up to `vocab` logits.
struct SamplerScratch {
  explicit SamplerScratch(int vocab);
  AlignedBuffer<float> row;      // logits after the lists and the temperature
  AlignedBuffer<float> values;   // candidates
  AlignedBuffer<float> weights;  // their exp
  AlignedBuffer<int32_t> ids;
};

// A token that penalties apply to.
struct PenalizedToken {
  int32_t token_id;
  int32_t generated;  // times it was generated; 0: it is in the prompt alone
};

struct TokenBias {
  int32_t token_id;
  float bias;
};

struct SampleParams {
  const float* logits = nullptr;  // [vocab, padded]
  int vocab = 0;
  SamplingScalars scalars;
  uint32_t position = 0;             // tokens generated before
  std::span<const int32_t> allowed;  // empty: all
  std::span<const int32_t> banned[3];
  std::span<const TokenBias> biases;
  std::span<const PenalizedToken> penalized;  // each token once
  SamplerScratch* scratch = nullptr;
};

// The next token. 0 if every token is banned.
int32_t SampleToken(const SampleParams& params);

// Log of the sum of exp(logits).
float LogSumExp(const float* logits, int vocab);

// Number of logits greater than `value`.
int32_t CountGreater(const float* logits, int vocab, float value);

// The ids of the n largest logits, largest first, ties to the lower id, to `ids` (1 <= n <= vocab).
// Returns how many: fewer than n if logits are NaN.
int TopIds(const float* logits, int vocab, int n, SamplerScratch* scratch, int32_t* ids);

}  // namespace hgrn2::cpu
