// What sampling means, shared by the CPU and CUDA kernels so that both pick the same token.
//
// Order of operations on a row of logits (vLLM's):
//   1. allowed_token_ids, bans (bad_words, min_tokens): logit = -inf; logit_bias added
//   2. repetition, then frequency and presence penalties
//   3. temperature 0: arg max, ties to the lowest id. Otherwise x = logit / temperature
//   4. min_p, top_k, top_p, in this order, each on what the one before kept. Every token whose
//      value equals the threshold's is kept, so the kept set does not depend on an order
//   5. Gumbel-max: arg max of x_i - log(E_i), E_i = ExponentialNoise(...), over the kept set, which
//      is a draw from softmax(x) (arXiv 1411.0030). It needs no sort and no running sum, and the
//      noise depends on (seed, position, token id) alone: the result is the same on every device
//      up to the rounding of the logits.
// Log-probabilities are of the raw logits, before step 1.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define HGRN2_HOST_DEVICE __host__ __device__
#else
#define HGRN2_HOST_DEVICE
#endif

namespace hgrn2 {

// Plain scalars of one sequence's sampling; the lists live beside it (engine/backend/backend.h).
struct SamplingScalars {
  float temperature = 1.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;
  int32_t top_k = 0;      // <= 0: off
  int32_t logprobs = -1;  // -1: none; N >= 0: of the sampled token and of the N best
  uint64_t seed = 0;
};

// splitmix64 finaliser (Steele et al., OOPSLA 2014): the per-position key of a seed.
HGRN2_HOST_DEVICE inline uint64_t PositionKey(uint64_t seed, uint32_t position) {
  uint64_t z = seed + 0x9E3779B97F4A7C15ull * (static_cast<uint64_t>(position) + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// 32 uniform bits for a token id under a key: two rounds of a 32-bit mixing function (the
// "lowbias32" constants of C. Wellons' hash-prospector), one for each half of the key.
HGRN2_HOST_DEVICE inline uint32_t NoiseBits(uint64_t key, uint32_t token_id) {
  uint32_t h = token_id * 0x9E3779B9u ^ static_cast<uint32_t>(key);
  h = (h ^ (h >> 16)) * 0x7FEB352Du;
  h = (h ^ (h >> 15)) * 0x846CA68Bu;
  h ^= (h >> 16) ^ static_cast<uint32_t>(key >> 32);
  h = (h ^ (h >> 16)) * 0x7FEB352Du;
  h = (h ^ (h >> 15)) * 0x846CA68Bu;
  return h ^ (h >> 16);
}

// A draw from Exp(1): -log(1 - u), u = (bits + 0.5) / 2^32. Small values (which win the arg max)
// keep their relative precision because log1p is used.
HGRN2_HOST_DEVICE inline float ExponentialNoise(uint64_t key, uint32_t token_id) {
  const float u = (static_cast<float>(NoiseBits(key, token_id)) + 0.5f) * 2.3283064365386963e-10f;
  return -log1pf(-(u < 0.99999994f ? u : 0.99999994f));
}

}  // namespace hgrn2
