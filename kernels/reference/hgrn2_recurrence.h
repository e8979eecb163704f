// The HGRN2 recurrence of one head in double precision, in the three forms that the kernels use.
// Equal in exact arithmetic; property tests hold them, and the kernels, to each other.
//
//   S_t = diag(g_t) S_{t-1} + (1 - g_t) i_t^T        S is [K, V]
//   o_t = scale * q_t^T S_t                           scale = K^(-1/2) as in the reference
//
// Source: HGRN2 (arXiv 2404.07904), section 3; chunked form as in GLA (arXiv 2312.06635),
// section 4.
#pragma once

#include <cstdint>

namespace hgrn2::reference {

// One head's inputs for num_tokens tokens, and its state.
struct RecurrenceParams {
  int64_t num_tokens = 0;  // T >= 0
  int64_t key_dim = 0;     // K
  int64_t value_dim = 0;   // V
  double scale = 1;
  const double* q = nullptr;      // [T, K]
  const double* log_g = nullptr;  // [T, K], in [-inf, 0]: log of the forget gate
  const double* i = nullptr;      // [T, V]
  double* state = nullptr;        // [K, V], in and out
  double* o = nullptr;            // [T, V], out; must not overlap the inputs
};

// Token by token: the definition.
void RecurrentForward(const RecurrenceParams& p);

// In chunks of chunk_size >= 1 tokens (the last may be shorter): outputs and the state's update
// come from the state at the chunk's start and products of gates inside the chunk.
void ChunkedForward(const RecurrenceParams& p, int64_t chunk_size);

// As a decoder that keeps the last n <= window tokens' (g, i) beside an old state, computes each
// output from both, and folds the tokens into the state after every window-th one. At the end the
// remaining tokens are folded too, so that `state` is comparable. window >= 1.
void ReplayForward(const RecurrenceParams& p, int64_t window);

}  // namespace hgrn2::reference
